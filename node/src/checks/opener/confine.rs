//! Shuts a process off, before it reads anything: no file, no network, no other process, little memory, and a kernel that ends it
//! at once when it asks for more than to compute, to read from its standard input and to write to its standard output.

use std::collections::BTreeMap;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use nix::sys::signal::{SigSet, Signal};
use rustix::{
    process::{
        DumpableBehavior, Resource, Rlimit, Signal as DeathSignal, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit,
    },
    thread::set_name,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Address space in bytes, about twice what the largest messages were seen to take within the caps of the analyses.
const MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Processor time of a whole life. The node replaces an opener before it has used so much (`process`); this is for one whose
/// node cannot any more.
const LIFE_CPU_S_MAX: u64 = 180;
/// The kernel's bits for memory that may be run (`PROT_EXEC`) in the third argument of `mmap` and `mprotect`.
const PROT_EXEC: u64 = 4;

/// Why a process could not be shut off.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A call of the system said no.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The kernel takes no filter of system calls, or there is none for this machine.
    #[error("filter system calls (seccomp): {0}")]
    Seccomp(#[from] seccompiler::Error),
}

/// What holds a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Whether Landlock does; kernels before 5.13, and some that are newer, do not have it.
    pub landlock: bool,
}

/// Shuts this process off for good. It must have no other thread: what is said here holds for the calling one.
///
/// # Errors
/// When the kernel cannot do it; only Landlock may be missing, for the filter of system calls alone lets nobody out.
pub fn confine() -> Result<Confined, ConfineError> {
    let system = |what| move |error: rustix::io::Errno| ConfineError::System { what, source: error.into() };
    set_parent_process_death_signal(Some(DeathSignal::KILL)).map_err(system("ask to end with the node"))?;
    set_name(c"postern-opener").map_err(system("set the name"))?;
    keep_at_work();
    close_inherited()?;
    // The first that the kernel takes when memory is short.
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
    // What a message says is not left in a dump of memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(system("forbid dumps of memory"))?;
    let landlock = lock_land().unwrap_or(false);
    let bounds = [
        (Resource::As, MEMORY_BYTES_MAX),
        (Resource::Cpu, LIFE_CPU_S_MAX),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, 0),
        (Resource::Nproc, 0),
    ];
    for (resource, most) in bounds {
        let bound = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, bound).map_err(system("bound what may be used"))?;
    }
    apply_filter(&filter()?)?;
    Ok(Confined { landlock })
}

/// Signals that ask a whole group of processes to stop are for the node, which ends its openers when it needs them no more.
fn keep_at_work() {
    let asked = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    // It cannot fail for these; if it did, a message would be lost at a stop, no more.
    let _ = asked.into_iter().collect::<SigSet>().thread_block();
}

/// Whoever started the node may have left it descriptors that it knows nothing of.
fn close_inherited() -> Result<(), ConfineError> {
    let system = |source| ConfineError::System { what: "list open files in /proc/self/fd", source };
    let listed = std::fs::read_dir("/proc/self/fd").map_err(system)?;
    let numbers = listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|number| *number > 2).collect::<Vec<_>>() {
        // The list's own is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// Allows nothing of all that this kernel's Landlock can forbid. False when it has none.
fn lock_land() -> Result<bool, landlock::RulesetError> {
    let newest = ABI::V6;
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?;
    let status = ruleset.create()?.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// What a process needs that computes; anything else ends it.
fn filter() -> Result<BpfProgram, seccompiler::Error> {
    let always = [
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_brk,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_sched_yield,
        libc::SYS_restart_syscall,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = always.into_iter().map(|call| (call, Vec::new())).collect();
    let is = |argument, value| one(argument, SeccompCmpOp::Eq, value);
    rules.insert(libc::SYS_read, vec![is(0, 0)?]);
    rules.insert(libc::SYS_write, vec![is(0, 1)?, is(0, 2)?]);
    let not_run = || one(2, SeccompCmpOp::MaskedEq(PROT_EXEC), 0);
    rules.insert(libc::SYS_mmap, vec![not_run()?]);
    rules.insert(libc::SYS_mprotect, vec![not_run()?]);
    // How a process ends itself when memory is short: the signal tells the node why.
    rules.insert(libc::SYS_tgkill, vec![is(0, u64::from(std::process::id()))?]);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?;
    Ok(filter.try_into()?)
}

/// A rule about one argument: the lower half of it counts, as in the kernel.
fn one(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}
