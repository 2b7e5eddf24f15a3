/* A disk under /data that remembers what it must forget when the power goes: loaded before libc (LD_PRELOAD).
 *
 * While /fault/power is there, each write that is not synced by itself is noted in /undo/log before it is done, with what
 * it takes the place of; a sync notes what it covers. When the process was killed, `Faults.lose_power` takes back what no
 * sync covers, newest first. Names (creating, renaming, removing) count as durable at once.
 *
 * A record of the log: kind, inode, offset, size of the file before, length of what follows; see `power.py`. One lock
 * orders the records; it is not held while data is written or synced. A sync covers what was noted before it began: that
 * may be more than what it was for, and is never less than what is durable.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef DATA /* elsewhere in the test of this file */
#define POWER "/fault/power"
#define UNDO "/undo/log"
#define DATA "/data"
#endif
#define WRITTEN 1
#define SYNCED 2

struct record {
    uint64_t kind, inode, offset, size, length;
};

#define NEXT(name) static __typeof__(&name) next_##name
NEXT(write);
NEXT(writev);
NEXT(pwrite);
NEXT(pwrite64);
NEXT(pwritev);
NEXT(pwritev64);
NEXT(pwritev2);
NEXT(pwritev64v2);
NEXT(ftruncate);
NEXT(ftruncate64);
NEXT(fallocate);
NEXT(fallocate64);
NEXT(fsync);
NEXT(fdatasync);

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void find_all(void) {
#define FIND(name) next_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
    FIND(write);
    FIND(writev);
    FIND(pwrite);
    FIND(pwrite64);
    FIND(pwritev);
    FIND(pwritev64);
    FIND(pwritev2);
    FIND(pwritev64v2);
    FIND(ftruncate);
    FIND(ftruncate64);
    FIND(fallocate);
    FIND(fallocate64);
    FIND(fsync);
    FIND(fdatasync);
}

/* Whether the file is one of the disk's, and the power is going to go. */
static int matters(int fd, struct stat *status) {
    struct stat data;
    if (access(POWER, F_OK) || fstat(fd, status) || !S_ISREG(status->st_mode)) return 0;
    return !stat(DATA, &data) && data.st_dev == status->st_dev;
}

static void put(const void *bytes, size_t length) {
    static int log = -1;
    if (log < 0) log = open(UNDO, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    for (size_t done = 0; done < length;) {
        ssize_t wrote = next_write(log, (const char *)bytes + done, length - done);
        if (wrote <= 0) abort(); /* nothing that follows would be worth anything */
        done += (size_t)wrote;
    }
}

/* Before a range is changed; `length` may reach behind the file's end. */
static void note_written(int fd, uint64_t offset, uint64_t length, int to_the_end) {
    int saved = errno;
    struct stat status;
    pthread_mutex_lock(&one_at_a_time);
    if (matters(fd, &status) && !(fcntl(fd, F_GETFL) & O_DSYNC)) {
        uint64_t size = (uint64_t)status.st_size;
        if (fcntl(fd, F_GETFL) & O_APPEND) offset = size;
        if (to_the_end) length = offset < size ? size - offset : 0;
        if (offset + length > size) length = offset < size ? size - offset : 0;
        char *before = malloc(length + 1), path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* the descriptor may be one for writing only */
        int reading = length ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        for (uint64_t done = 0; done < length;) {
            ssize_t got = syscall(SYS_pread64, reading, before + done, length - done, offset + done);
            if (got <= 0) abort();
            done += (uint64_t)got;
        }
        if (reading >= 0) close(reading);
        struct record record = {WRITTEN, status.st_ino, offset, size, length};
        put(&record, sizeof record);
        put(before, length);
        free(before);
    }
    pthread_mutex_unlock(&one_at_a_time);
    errno = saved;
}

/* Where the log stands before a sync, 0 where the file is none of the disk's. */
static uint64_t before_sync(int fd, struct stat *status) {
    struct stat log;
    uint64_t at = 0;
    pthread_mutex_lock(&one_at_a_time);
    if (matters(fd, status) && !stat(UNDO, &log)) at = (uint64_t)log.st_size;
    pthread_mutex_unlock(&one_at_a_time);
    return at;
}

static void note_synced(const struct stat *status, uint64_t at) {
    int saved = errno;
    struct record record = {SYNCED, status->st_ino, at, 0, 0};
    pthread_mutex_lock(&one_at_a_time);
    put(&record, sizeof record);
    pthread_mutex_unlock(&one_at_a_time);
    errno = saved;
}

static uint64_t sum(const struct iovec *v, int n) {
    uint64_t all = 0;
    for (int i = 0; i < n; i++) all += v[i].iov_len;
    return all;
}

static uint64_t here(int fd) {
    off_t at = lseek(fd, 0, SEEK_CUR); /* a pipe has no place, and does not matter */
    return at < 0 ? 0 : (uint64_t)at;
}

#define NOTED(fd, offset, length, name, ...) \
    note_written(fd, (uint64_t)(offset), length, 0);  \
    return next_##name(__VA_ARGS__)

ssize_t write(int fd, const void *from, size_t n) {
    if (!next_write) find_all(); /* another constructor has something to say */
    if (fd <= 2) return next_write(fd, from, n);
    NOTED(fd, here(fd), n, write, fd, from, n);
}
ssize_t writev(int fd, const struct iovec *v, int n) { NOTED(fd, here(fd), sum(v, n), writev, fd, v, n); }
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) { NOTED(fd, at, n, pwrite, fd, from, n, at); }
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at) { NOTED(fd, at, n, pwrite64, fd, from, n, at); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at) { NOTED(fd, at, sum(v, n), pwritev, fd, v, n, at); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t at) {
    NOTED(fd, at, sum(v, n), pwritev64, fd, v, n, at);
}
ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t at, int f) {
    NOTED(fd, at, sum(v, n), pwritev2, fd, v, n, at, f);
}
ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off64_t at, int f) {
    NOTED(fd, at, sum(v, n), pwritev64v2, fd, v, n, at, f);
}
/* Holes are punched; what only takes room changes nothing that could be lost. */
int fallocate(int fd, int mode, off_t at, off_t n) {
    if (mode & FALLOC_FL_PUNCH_HOLE) note_written(fd, (uint64_t)at, (uint64_t)n, 0);
    return next_fallocate(fd, mode, at, n);
}
int fallocate64(int fd, int mode, off64_t at, off64_t n) {
    if (mode & FALLOC_FL_PUNCH_HOLE) note_written(fd, (uint64_t)at, (uint64_t)n, 0);
    return next_fallocate64(fd, mode, at, n);
}
int ftruncate(int fd, off_t to) {
    note_written(fd, (uint64_t)to, 0, 1);
    return next_ftruncate(fd, to);
}
int ftruncate64(int fd, off64_t to) {
    note_written(fd, (uint64_t)to, 0, 1);
    return next_ftruncate64(fd, to);
}

#define SYNCS(name) \
    int name(int fd) { \
        struct stat status; \
        uint64_t at = before_sync(fd, &status); \
        int result = next_##name(fd); \
        if (at && !result) note_synced(&status, at); \
        return result; \
    }
SYNCS(fsync)
SYNCS(fdatasync)
