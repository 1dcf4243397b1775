/* The preload shim's part for names within the watched folder, and for the wall clock. */

#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* ---- names ---- */

static int rename_any(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    struct name old, new;
    if (!find_name(to_at, to, &new) || !find_name(from_at, from, &old))
        return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    uint64_t number = enter(KIND_RENAME);
    char kept[PATH_MAX] = "";
    int done = -1;
    if (flags & RENAME_EXCHANGE) {
        errno = EINVAL;
    } else {
        if (!(flags & RENAME_NOREPLACE))
            journal_keep(new.path, kept);
        done = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
        int said = errno;
        if (done == 0)
            journal_add_paths(KIND_RENAME, new.folder_inode, old.path, new.path, kept);
        errno = said;
    }
    leave(KIND_RENAME, number);
    return done;
}

int rename(const char *from, const char *to)
{
    return rename_any(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    return rename_any(from_at, from, to_at, to, 0);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    return rename_any(from_at, from, to_at, to, flags);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    struct name new;
    if (!find_name(to_at, to, &new))
        return (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    uint64_t number = enter(KIND_CREATE);
    int done = fails(&control->write_errno) ? -1 : (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (done == 0)
        journal_add_paths(KIND_CREATE, new.folder_inode, new.path, NULL, NULL);
    leave(KIND_CREATE, number);
    return done;
}

int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    struct name name;
    if (!find_name(at, path, &name))
        return (int)syscall(SYS_unlinkat, at, path, flags);
    enum kind kind = flags & AT_REMOVEDIR ? KIND_RMDIR : KIND_UNLINK;
    uint64_t number = enter(kind);
    char kept[PATH_MAX] = "";
    if (kind == KIND_UNLINK)
        journal_keep(name.path, kept);
    int done = (int)syscall(SYS_unlinkat, at, path, flags);
    int said = errno;
    if (done == 0)
        journal_add_paths(kind, name.folder_inode, name.path, kind == KIND_UNLINK ? kept : NULL, NULL);
    errno = said;
    leave(kind, number);
    return done;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdirat(int at, const char *path, mode_t mode)
{
    struct name name;
    if (!find_name(at, path, &name))
        return (int)syscall(SYS_mkdirat, at, path, mode);
    uint64_t number = enter(KIND_MKDIR);
    int done = fails(&control->write_errno) ? -1 : (int)syscall(SYS_mkdirat, at, path, mode);
    if (done == 0)
        journal_add_paths(KIND_MKDIR, name.folder_inode, name.path, NULL, NULL);
    leave(KIND_MKDIR, number);
    return done;
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

/* ---- the wall clock ---- */

static int (*real_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void find_clock(void)
{
    /* The one of the C library reads the time without a system call. */
    real_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int done = real_clock == NULL ? (int)syscall(SYS_clock_gettime, clock, now) : real_clock(clock, now);
    if (done != 0 || control == NULL || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return done;
    int64_t offset_ms = atomic_load(&control->clock_offset_ms);
    int64_t nanos = now->tv_nsec + offset_ms % 1000 * 1000000;
    now->tv_sec += (time_t)(offset_ms / 1000);
    if (nanos < 0) {
        now->tv_sec -= 1;
        nanos += 1000000000;
    } else if (nanos >= 1000000000) {
        now->tv_sec += 1;
        nanos -= 1000000000;
    }
    now->tv_nsec = (long)nanos;
    return 0;
}

time_t time(time_t *into)
{
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (into != NULL)
        *into = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict into, void *restrict zone)
{
    (void)zone;
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    into->tv_sec = now.tv_sec;
    into->tv_usec = now.tv_nsec / 1000;
    return 0;
}
