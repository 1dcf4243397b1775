/* The preload shim's part that opens, copies and closes descriptors, and knows by it which files are watched. */

#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_any(int at, const char *path, int flags, mode_t mode)
{
    struct name name;
    int creates = (flags & O_CREAT) != 0, truncates = (flags & O_TRUNC) != 0;
    if ((!creates && !truncates) || !find_name(at, path, &name)) {
        int opened = (int)syscall(SYS_openat, at, path, flags, mode);
        if (opened >= 0) {
            int said = errno;
            char whole[PATH_MAX];
            watch(opened, path_of(opened, whole) && is_below(whole));
            errno = said;
        }
        return opened;
    }
    struct stat found;
    int errno_before = errno;
    int is_new = creates && fstatat(AT_FDCWD, name.path, &found, AT_SYMLINK_NOFOLLOW) < 0;
    errno = errno_before;
    uint64_t number = is_new ? enter(KIND_CREATE) : 0;
    int opened = is_new && fails(&control->write_errno) ? -1 : (int)syscall(SYS_openat, at, path, flags & ~O_TRUNC, mode);
    int said = errno;
    if (opened >= 0 && is_new)
        journal_add_paths(KIND_CREATE, name.folder_inode, name.path, NULL, NULL);
    watch(opened, 1);
    if (is_new)
        leave(KIND_CREATE, number);
    if (opened >= 0 && truncates && !is_new)
        resize(opened, 0);
    errno = said;
    return opened;
}

#define MODE_OF(flags, mode)                                                                                              \
    mode_t mode = 0;                                                                                                      \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                                \
        va_list rest;                                                                                                     \
        va_start(rest, flags);                                                                                            \
        mode = va_arg(rest, mode_t);                                                                                      \
        va_end(rest);                                                                                                     \
    }

int open(const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return open_any(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return open_any(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return open_any(at, path, flags | O_LARGEFILE, mode);
}

int creat(const char *path, mode_t mode)
{
    return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int descriptor)
{
    watch(descriptor, 0);
    return (int)syscall(SYS_close, descriptor);
}

int dup(int descriptor)
{
    int copy = (int)syscall(SYS_dup, descriptor);
    watch(copy, is_watched(descriptor));
    return copy;
}

int dup3(int descriptor, int copy, int flags)
{
    int done = (int)syscall(SYS_dup3, descriptor, copy, flags);
    if (done >= 0)
        watch(done, is_watched(descriptor));
    return done;
}

int dup2(int descriptor, int copy)
{
    return descriptor == copy ? (int)syscall(SYS_dup2, descriptor, copy) : dup3(descriptor, copy, 0);
}

int fcntl(int descriptor, int command, ...)
{
    va_list rest;
    va_start(rest, command);
    long argument = va_arg(rest, long);
    va_end(rest);
    int answer = (int)syscall(SYS_fcntl, descriptor, command, argument);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
        watch(answer, is_watched(descriptor));
    return answer;
}

int fcntl64(int descriptor, int command, ...)
{
    va_list rest;
    va_start(rest, command);
    long argument = va_arg(rest, long);
    va_end(rest);
    return fcntl(descriptor, command, argument);
}
