/* A disk that fails and a clock that jumps, for one process: loaded before libc (LD_PRELOAD).
 *
 * /fault/read-error   while it is there, every third read of a backing file (*.shards) fails with EIO; "all" in it: every one
 * /fault/clock        seconds that the wall clock is wrong by; the monotonic clock is never touched
 *
 * The folder is the tests' own, and each part has one of its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define READ_ERROR "/fault/read-error"
#define CLOCK "/fault/clock"
#define LOOK_MS 100

static size_t content(const char *path, char *text, size_t size) {
    int saved = errno, fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = -1;
    if (fd >= 0) {
        got = read(fd, text, size - 1);
        close(fd);
    }
    errno = saved;
    text[got > 0 ? got : 0] = 0;
    return fd < 0 ? (size_t)-1 : (size_t)(got > 0 ? got : 0);
}

static int fails(int fd) {
    static unsigned reads;
    char text[16], link[64], path[512];
    if (content(READ_ERROR, text, sizeof text) == (size_t)-1) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 7 || memcmp(path + length - 7, ".shards", 7)) return 0;
    return !strncmp(text, "all", 3) || __sync_fetch_and_add(&reads, 1) % 3 == 0;
}

#define FAIL_OR(fd, name, ...) (fails(fd) ? (errno = EIO, -1) : next_##name(__VA_ARGS__))
#define NEXT(name) static __typeof__(&name) next_##name

NEXT(pread);
NEXT(pread64);
NEXT(preadv);
NEXT(preadv64);
NEXT(preadv2);
NEXT(preadv64v2);
NEXT(sendfile);
NEXT(sendfile64);
NEXT(clock_gettime);

__attribute__((constructor)) static void find_all(void) {
#define FIND(name) next_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
    FIND(pread);
    FIND(pread64);
    FIND(preadv);
    FIND(preadv64);
    FIND(preadv2);
    FIND(preadv64v2);
    FIND(sendfile);
    FIND(sendfile64);
    FIND(clock_gettime);
}

ssize_t pread(int fd, void *to, size_t n, off_t at) { return FAIL_OR(fd, pread, fd, to, n, at); }
ssize_t pread64(int fd, void *to, size_t n, off64_t at) { return FAIL_OR(fd, pread64, fd, to, n, at); }
ssize_t preadv(int fd, const struct iovec *v, int n, off_t at) { return FAIL_OR(fd, preadv, fd, v, n, at); }
ssize_t preadv64(int fd, const struct iovec *v, int n, off64_t at) { return FAIL_OR(fd, preadv64, fd, v, n, at); }
ssize_t preadv2(int fd, const struct iovec *v, int n, off_t at, int f) { return FAIL_OR(fd, preadv2, fd, v, n, at, f); }
ssize_t preadv64v2(int fd, const struct iovec *v, int n, off64_t at, int f) {
    return FAIL_OR(fd, preadv64v2, fd, v, n, at, f);
}
ssize_t sendfile(int out, int fd, off_t *at, size_t n) { return FAIL_OR(fd, sendfile, out, fd, at, n); }
ssize_t sendfile64(int out, int fd, off64_t *at, size_t n) { return FAIL_OR(fd, sendfile64, out, fd, at, n); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    static long wrong_s, looked_ms;
    if (!next_clock_gettime) find_all(); /* asked for before the constructor ran */
    int result = next_clock_gettime(clock, now);
    if (result || clock != CLOCK_REALTIME) return result;
    struct timespec since;
    next_clock_gettime(CLOCK_MONOTONIC, &since);
    long now_ms = since.tv_sec * 1000 + since.tv_nsec / 1000000;
    if (now_ms - looked_ms > LOOK_MS) { /* processes ask for the time all the time */
        char text[32];
        looked_ms = now_ms;
        wrong_s = content(CLOCK, text, sizeof text) == (size_t)-1 ? 0 : atol(text);
    }
    now->tv_sec += wrong_s;
    return result;
}
