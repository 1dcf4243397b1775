/* A preload shim that stands between a program and its disk and clock: it makes disks slow, full or broken, moves the wall
 * clock, and cuts the power at a chosen operation, with a journal from which what was not durable is taken back.
 *
 * Environment of the program:
 *   LD_PRELOAD               this library
 *   POSTERN_SHIM_CONTROL     the control file: 4096 bytes, mapped by the program, changed by the test while it runs. Its
 *                            layout is `struct control` in shim.h: numbers of 8 bytes, in the machine's byte order.
 *   POSTERN_SHIM_FOLDER      the watched folder (absolute, without symbolic links): faults of the disk hit only what is below
 *                            it. Without it only the clock is changed.
 *   POSTERN_SHIM_JOURNAL     path of the undo journal. With it fsync only adds a record (nothing needs the real one, because
 *                            the page cache outlives a killed process), and all operations run one after the other.
 *
 * An fsync covers what was written before it was called. sync_file_range covers nothing: it does not flush the disk's cache,
 * nor a file's length. A name is durable only when its folder is fsynced. What is written through a mapping is not seen. */

#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS 65536

struct control *control;
static char folder[PATH_MAX];
static size_t folder_bytes;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
/* Whether a descriptor is of a file or folder within the watched one. */
static _Atomic unsigned char watched[DESCRIPTORS];

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("POSTERN_SHIM_CONTROL");
    if (path == NULL)
        return;
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (file < 0)
        give_up("open the control file");
    void *mapped = mmap(NULL, CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        give_up("map the control file");
    syscall(SYS_close, file);
    control = mapped;
    errno = EINVAL;
    if (memcmp(control->magic, "POSTERN1", 8) != 0)
        give_up("read the control file");
    const char *below = getenv("POSTERN_SHIM_FOLDER");
    if (below == NULL || strlen(below) >= sizeof folder)
        return;
    strcpy(folder, below);
    folder_bytes = strlen(folder);
    const char *journal = getenv("POSTERN_SHIM_JOURNAL");
    if (journal != NULL)
        journal_open(journal);
}

int is_below(const char *path)
{
    return folder_bytes > 0 && strncmp(path, folder, folder_bytes) == 0 &&
           (path[folder_bytes] == '/' || path[folder_bytes] == '\0');
}

int is_watched(int descriptor)
{
    return descriptor >= 0 && descriptor < DESCRIPTORS && atomic_load(&watched[descriptor]);
}

void watch(int descriptor, int yes)
{
    if (descriptor >= 0 && descriptor < DESCRIPTORS)
        atomic_store(&watched[descriptor], (unsigned char)yes);
}

int path_of(int descriptor, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t bytes = (ssize_t)syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[bytes < 0 ? 0 : bytes] = '\0';
    return bytes >= 0;
}

static uint64_t inode_of(int descriptor, uint64_t *size)
{
    struct stat found;
    if (fstat(descriptor, &found) < 0)
        give_up("look at an open file");
    if (size != NULL)
        *size = (uint64_t)found.st_size;
    return (uint64_t)found.st_ino;
}

int find_name(int at, const char *path, struct name *name)
{
    int errno_before = errno, found = 0;
    char around[PATH_MAX];
    size_t bytes = folder_bytes == 0 || path == NULL ? PATH_MAX : strlen(path);
    if (bytes >= PATH_MAX)
        return 0;
    memcpy(around, path, bytes + 1);
    while (bytes > 1 && around[bytes - 1] == '/')
        around[--bytes] = '\0';
    char *slash = strrchr(around, '/');
    const char *last = slash == NULL ? around : slash + 1;
    char base[NAME_MAX + 1];
    if (strlen(last) > NAME_MAX)
        return 0;
    strcpy(base, last);
    const char *parent = slash == NULL ? "." : slash == around ? "/" : around;
    if (slash != NULL && slash != around)
        *slash = '\0';
    int opened = (int)syscall(SYS_openat, at, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (opened >= 0) {
        char whole[PATH_MAX];
        if (path_of(opened, whole) && is_below(whole) && strlen(whole) + strlen(base) + 2 < PATH_MAX) {
            snprintf(name->path, sizeof name->path, "%.*s/%s", PATH_MAX - NAME_MAX - 2, whole, base);
            name->folder_inode = inode_of(opened, NULL);
            found = 1;
        }
        syscall(SYS_close, opened);
    }
    errno = errno_before;
    return found;
}

/* The power goes: nothing of this process runs on. */
static void cut(enum kind kind)
{
    atomic_store(&control->cut_kind, kind);
    for (;;)
        syscall(SYS_kill, getpid(), SIGKILL);
}

uint64_t enter(enum kind kind)
{
    if (journal_is_open())
        pthread_mutex_lock(&one_at_a_time);
    uint64_t number = atomic_fetch_add(&control->operations, 1) + 1;
    uint64_t cut_at = atomic_load(&control->cut_at);
    if (cut_at != 0 && number >= cut_at && !atomic_load(&control->cut_after))
        cut(kind);
    return number;
}

void leave(enum kind kind, uint64_t number)
{
    uint64_t cut_at = atomic_load(&control->cut_at);
    if (cut_at != 0 && number >= cut_at)
        cut(kind);
    if (journal_is_open())
        pthread_mutex_unlock(&one_at_a_time);
}

int fails(_Atomic uint64_t *with)
{
    uint64_t number = atomic_load(with), most = atomic_load(&control->errors_max);
    if (number == 0 || (most != 0 && atomic_load(&control->errors) >= most))
        return 0;
    atomic_fetch_add(&control->errors, 1);
    errno = (int)number;
    return 1;
}

/* ---- contents ---- */

static ssize_t write_watched(int descriptor, const void *bytes, size_t length, int64_t offset)
{
    uint64_t number = enter(KIND_WRITE);
    ssize_t done = -1;
    if (!fails(&control->write_errno)) {
        uint64_t size = 0, inode = inode_of(descriptor, &size);
        uint64_t at = (uint64_t)offset;
        if (offset < 0)
            at = fcntl(descriptor, F_GETFL) & O_APPEND ? size : (uint64_t)syscall(SYS_lseek, descriptor, 0, SEEK_CUR);
        size_t covered = at >= size ? 0 : size - at < length ? size - at : length;
        char *old = journal_is_open() && covered > 0 ? malloc(covered) : NULL;
        if (old != NULL)
            covered = read_part(descriptor, old, covered, at);
        done = offset < 0 ? (ssize_t)syscall(SYS_write, descriptor, bytes, length)
                          : (ssize_t)syscall(SYS_pwrite64, descriptor, bytes, length, offset);
        int said = errno;
        if (done > 0)
            journal_add(KIND_WRITE, inode, at, (uint64_t)done, size, old,
                        old == NULL ? 0 : covered < (size_t)done ? covered : (size_t)done);
        free(old);
        errno = said;
    }
    leave(KIND_WRITE, number);
    return done;
}

ssize_t write(int descriptor, const void *bytes, size_t length)
{
    if (!is_watched(descriptor))
        return syscall(SYS_write, descriptor, bytes, length);
    return write_watched(descriptor, bytes, length, -1);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset)
{
    if (!is_watched(descriptor))
        return syscall(SYS_pwrite64, descriptor, bytes, length, offset);
    return write_watched(descriptor, bytes, length, offset);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off_t offset)
{
    return pwrite(descriptor, bytes, length, offset);
}

static ssize_t gather(int descriptor, const struct iovec *parts, int count, int64_t offset)
{
    size_t length = 0, used = 0;
    for (int each = 0; each < count; each++)
        length += parts[each].iov_len;
    char *all = malloc(length + 1);
    if (all == NULL)
        give_up("gather what is to be written");
    for (int each = 0; each < count; each++) {
        memcpy(all + used, parts[each].iov_base, parts[each].iov_len);
        used += parts[each].iov_len;
    }
    ssize_t done = write_watched(descriptor, all, length, offset);
    int said = errno;
    free(all);
    errno = said;
    return done;
}

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    if (!is_watched(descriptor))
        return syscall(SYS_writev, descriptor, parts, count);
    return gather(descriptor, parts, count, -1);
}

ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset)
{
    if (!is_watched(descriptor))
        return syscall(SYS_pwritev, descriptor, parts, count, offset, 0);
    return gather(descriptor, parts, count, offset);
}

ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off_t offset)
{
    return pwritev(descriptor, parts, count, offset);
}

/* Copies within the kernel are refused for watched files, so that the program writes the bytes itself. */
ssize_t copy_file_range(int from, off_t *from_at, int to, off_t *to_at, size_t length, unsigned flags)
{
    if (is_watched(to)) {
        errno = EXDEV;
        return -1;
    }
    return syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
}

ssize_t sendfile(int to, int from, off_t *at, size_t length)
{
    if (is_watched(to)) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_sendfile, to, from, at, length);
}

ssize_t sendfile64(int to, int from, off_t *at, size_t length)
{
    return sendfile(to, from, at, length);
}

int resize(int descriptor, uint64_t size)
{
    uint64_t number = enter(KIND_SIZE), old_size = 0, inode = inode_of(descriptor, &old_size);
    int done = -1;
    if (size <= old_size || !fails(&control->write_errno)) {
        size_t lost = size < old_size ? old_size - size : 0;
        char *old = journal_is_open() && lost > 0 ? malloc(lost) : NULL;
        if (old != NULL)
            lost = read_part(descriptor, old, lost, size);
        done = (int)syscall(SYS_ftruncate, descriptor, size);
        int said = errno;
        if (done == 0 && size != old_size)
            journal_add(KIND_SIZE, inode, 0, size, old_size, old, old == NULL ? 0 : lost);
        free(old);
        errno = said;
    }
    leave(KIND_SIZE, number);
    return done;
}

int ftruncate(int descriptor, off_t size)
{
    return is_watched(descriptor) ? resize(descriptor, (uint64_t)size) : (int)syscall(SYS_ftruncate, descriptor, size);
}

int ftruncate64(int descriptor, off_t size)
{
    return ftruncate(descriptor, size);
}

int fallocate(int descriptor, int mode, off_t offset, off_t length)
{
    if (!is_watched(descriptor))
        return (int)syscall(SYS_fallocate, descriptor, mode, offset, length);
    /* Punching holes and the like would need a record of its own. */
    errno = EOPNOTSUPP;
    return -1;
}

int fallocate64(int descriptor, int mode, off_t offset, off_t length)
{
    return fallocate(descriptor, mode, offset, length);
}

/* ---- fsync ---- */

static int sync_watched(int descriptor, long call)
{
    uint64_t covered = journal_position(), inode = inode_of(descriptor, NULL);
    uint64_t slow_ms = atomic_load(&control->slow_fsync_ms);
    if (slow_ms > 0) {
        struct timespec wait = {(time_t)(slow_ms / 1000), (long)(slow_ms % 1000) * 1000000};
        nanosleep(&wait, NULL);
    }
    uint64_t number = enter(KIND_SYNC);
    atomic_fetch_add(&control->fsyncs, 1);
    if (atomic_load(&control->failed_inode) == inode)
        atomic_fetch_add(&control->retries, 1);
    int done = 0;
    if (fails(&control->fsync_errno)) {
        atomic_store(&control->failed_inode, inode);
        done = -1;
    } else if (!atomic_load(&control->lie_fsync)) {
        if (journal_is_open())
            journal_add(KIND_SYNC, inode, 0, covered, 0, NULL, 0);
        else
            done = (int)syscall(call, descriptor);
    }
    leave(KIND_SYNC, number);
    return done;
}

int fsync(int descriptor)
{
    return is_watched(descriptor) ? sync_watched(descriptor, SYS_fsync) : (int)syscall(SYS_fsync, descriptor);
}

int fdatasync(int descriptor)
{
    return is_watched(descriptor) ? sync_watched(descriptor, SYS_fdatasync) : (int)syscall(SYS_fdatasync, descriptor);
}

int sync_file_range(int descriptor, off_t offset, off_t length, unsigned flags)
{
    if (is_watched(descriptor) && journal_is_open())
        return 0;
    return (int)syscall(SYS_sync_file_range, descriptor, offset, length, flags);
}
