/* What the parts of the preload shim share: the control file's layout and the undo journal's records. */

#ifndef POSTERN_SHIM_H
#define POSTERN_SHIM_H

#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

/* The first bytes of the control file. The first part is read before each operation; the second one is written by the shim. */
struct control {
    char magic[8];                         /*   0  "POSTERN1"; anything else: the process ends at once               */
    _Atomic uint64_t slow_fsync_ms;        /*   8  each fsync takes this much longer                                 */
    _Atomic uint64_t write_errno;          /*  16  what writing, growing and creating fail with; 0: they work        */
    _Atomic uint64_t fsync_errno;          /*  24  what fsync fails with; 0: it works                                */
    _Atomic int64_t clock_offset_ms;       /*  32  added to the wall clock, and never to the monotonic one           */
    _Atomic uint64_t lie_fsync;            /*  40  1: fsync says that it worked and does nothing                     */
    _Atomic uint64_t cut_at;               /*  48  the power goes at this operation number; 0: never                 */
    _Atomic uint64_t cut_after;            /*  56  0: just before it is done; 1: just after                          */
    _Atomic uint64_t errors_max;           /*  64  no error is made up once `errors` has come this far; 0: no limit  */
    _Atomic uint64_t operations;           /*  72  operations so far that change the watched folder or sync it       */
    _Atomic uint64_t fsyncs;               /*  80  fsyncs that were asked for                                        */
    _Atomic uint64_t errors;               /*  88  errors made up so far                                             */
    _Atomic uint64_t retries;              /*  96  fsyncs of a file after an fsync of it had failed                  */
    _Atomic uint64_t cut_kind;             /* 104  kind of the operation at which the power went; 0: it has not      */
    _Atomic uint64_t failed_inode;         /* 112  file whose fsync failed last                                      */
    _Atomic uint64_t sequence;             /* 120  number of the last journal record, over all runs of the process   */
};

#define CONTROL_BYTES 4096

/* Kinds of operations, and of journal records. */
enum kind {
    KIND_WRITE = 1,
    KIND_SIZE = 2,
    KIND_SYNC = 3,
    KIND_CREATE = 4,
    KIND_RENAME = 5,
    KIND_UNLINK = 6,
    KIND_MKDIR = 7,
    KIND_RMDIR = 8,
};

/* A journal record, followed by `payload` bytes. All numbers are in the machine's byte order.
 *
 * WRITE   inode = file; offset, length = where; old_size = the file's length before; payload = the bytes that were there
 * SIZE    inode = file; length = the new length; old_size = the one before; payload = the bytes that were cut off
 * SYNC    inode = file or folder; length = last record that this fsync covers
 * CREATE  inode = folder; payload = path NUL                    (a file or a hard link)
 * RENAME  inode = folder of the new name; payload = from NUL to NUL kept NUL (what `to` was, or empty)
 * UNLINK  inode = folder; payload = path NUL kept NUL
 * MKDIR, RMDIR  inode = the folder around it; payload = path NUL
 *
 * `kept` is a hard link beside the journal, so that a removed file can come back. */
struct record {
    uint64_t kind;
    uint64_t sequence;
    uint64_t inode;
    uint64_t offset;
    uint64_t length;
    uint64_t old_size;
    uint64_t payload;
};

/* None of these names may stand in the way of the program's own. */
#pragma GCC visibility push(hidden)

/* A name within the watched folder: its whole path and its folder's inode. */
struct name {
    char path[PATH_MAX];
    uint64_t folder_inode;
};

/* The mapped control file; NULL when the environment names none. */
extern struct control *control;
/* Finds out whether a name lies within the watched folder; errno is left as it was. */
int find_name(int at, const char *path, struct name *name);
/* Whether a path lies within the watched folder or is that folder. */
int is_below(const char *path);
/* The path of an open file (PATH_MAX bytes); 0 when the system does not say. */
int path_of(int descriptor, char *path);
/* Whether a descriptor is of a file or folder within the watched one. */
int is_watched(int descriptor);
/* Says whether it is. */
void watch(int descriptor, int yes);
/* Changes the length of a watched file. */
int resize(int descriptor, uint64_t size);
/* Begins an operation and gives its number; with a journal, alone until `leave`. */
uint64_t enter(enum kind kind);
/* Ends it. */
void leave(enum kind kind, uint64_t number);
/* Whether an operation is to fail with this number out of the control file, and errno for it. */
int fails(_Atomic uint64_t *with);

/* Opens the journal; without a path nothing is recorded. */
void journal_open(const char *path);
/* Whether there is one. */
int journal_is_open(void);
/* The last record's number. */
uint64_t journal_position(void);
/* Adds a record. The process ends when it cannot: a journal with a hole proves nothing. */
void journal_add(enum kind kind, uint64_t inode, uint64_t offset, uint64_t length, uint64_t old_size,
                 const void *payload, size_t payload_bytes);
/* Adds a record about one, two or three paths; NULL ends them. */
void journal_add_paths(enum kind kind, uint64_t folder_inode, const char *first, const char *second, const char *third);
/* Makes a hard link to what has this name, and writes its path to `kept` (PATH_MAX bytes); empty when there is nothing. */
void journal_keep(const char *path, char *kept);
/* Reads a part of a file, whatever its descriptor was opened for; gives the number of bytes. */
size_t read_part(int descriptor, void *into, size_t bytes, uint64_t offset);
/* Ends the process with a word on standard error. */
_Noreturn void give_up(const char *what);

#pragma GCC visibility pop

#endif
