/* The undo journal of the preload shim: what was there before each change that no fsync has made durable yet.
 *
 * It lies outside of the watched folder and is written with plain system calls: it only has to outlive the process, not the
 * machine. The process is killed by the shim alone and under the shim's lock, so a record and its change are never apart. */

#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int journal = -1;
static char kept_folder[PATH_MAX];

_Noreturn void give_up(const char *what)
{
    char line[256];
    int length = snprintf(line, sizeof line, "shim: %s: %s\n", what, strerror(errno));
    syscall(SYS_write, 2, line, (size_t)length);
    syscall(SYS_exit_group, 99);
    __builtin_unreachable();
}

void journal_open(const char *path)
{
    journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (journal < 0)
        give_up("open the journal");
    snprintf(kept_folder, sizeof kept_folder, "%s.kept", path);
    if (syscall(SYS_mkdirat, AT_FDCWD, kept_folder, 0700) < 0 && errno != EEXIST)
        give_up("make the folder of kept files");
}

int journal_is_open(void)
{
    return journal >= 0;
}

uint64_t journal_position(void)
{
    return control == NULL ? 0 : atomic_load(&control->sequence);
}

void journal_add(enum kind kind, uint64_t inode, uint64_t offset, uint64_t length, uint64_t old_size,
                 const void *payload, size_t payload_bytes)
{
    if (journal < 0)
        return;
    struct record record = {
        .kind = kind,
        .sequence = atomic_fetch_add(&control->sequence, 1) + 1,
        .inode = inode,
        .offset = offset,
        .length = length,
        .old_size = old_size,
        .payload = payload_bytes,
    };
    struct iovec parts[2] = {{&record, sizeof record}, {(void *)payload, payload_bytes}};
    ssize_t wanted = (ssize_t)(sizeof record + payload_bytes);
    if (syscall(SYS_writev, journal, parts, 2) != wanted)
        give_up("write the journal");
}

void journal_add_paths(enum kind kind, uint64_t folder_inode, const char *first, const char *second, const char *third)
{
    char payload[3 * PATH_MAX];
    size_t used = 0;
    const char *paths[3] = {first, second, third};
    for (int each = 0; each < 3 && paths[each] != NULL; each++) {
        size_t bytes = strlen(paths[each]) + 1;
        memcpy(payload + used, paths[each], bytes);
        used += bytes;
    }
    journal_add(kind, folder_inode, 0, 0, 0, payload, used);
}

void journal_keep(const char *path, char *kept)
{
    kept[0] = '\0';
    if (journal < 0)
        return;
    char name[PATH_MAX];
    /* The number of the record to come is not taken yet. */
    int bytes = snprintf(name, sizeof name, "%s/%llu", kept_folder, (unsigned long long)journal_position() + 1);
    if (bytes < 0 || (size_t)bytes >= sizeof name)
        give_up("name a kept file");
    /* A rename that fails, or that is tried again, leaves its link behind. */
    syscall(SYS_unlinkat, AT_FDCWD, name, 0);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, name, 0) == 0)
        strcpy(kept, name);
    else if (errno != ENOENT)
        give_up("keep a file that is being replaced or removed");
}

size_t read_part(int descriptor, void *into, size_t bytes, uint64_t offset)
{
    int own = -1;
    size_t done = 0;
    while (done < bytes) {
        int from = own >= 0 ? own : descriptor;
        ssize_t now = (ssize_t)syscall(SYS_pread64, from, (char *)into + done, bytes - done, (off_t)(offset + done));
        if (now < 0 && errno == EBADF && own < 0) {
            /* It was opened for writing only. */
            char path[64];
            snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
            own = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
            if (own < 0)
                give_up("open a file a second time");
            continue;
        }
        if (now < 0 && errno == EINTR)
            continue;
        if (now < 0)
            give_up("read what is about to be overwritten");
        if (now == 0)
            break;
        done += (size_t)now;
    }
    if (own >= 0)
        syscall(SYS_close, own);
    return done;
}
