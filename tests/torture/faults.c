/* Calls of files below a root, counted; the n-th of the chosen kinds fails, or ends the process.

Loaded by LD_PRELOAD, and idle until faults_arm. A call counts if its path, or the path that its
descriptor was opened by, lies below the root. Of rename and link the new name decides.

The clock, too: FAULTS_CLOCK of the environment is added to the seconds since 1970, and with
FAULTS_BACKWARDS time runs the other way.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, FSYNC = 4, RENAME = 8, MKDIR = 16, LINK = 32, LOCK = 64 };
#define KILL (-1)
#define EXPORT __attribute__((visibility("default")))

static char root[PATH_MAX], fired[PATH_MAX];
static size_t root_length;
static int kinds, error, lasting, log_to = -1;
static long fails_at;
static atomic_long count;

/* From now on the call number `at` of `chosen` kinds fails with `with`, all later ones too if
`always`; 0 counts only. Each is written to `log`, unless that is -1. */
EXPORT void faults_arm(const char *below, int chosen, long at, int with, int always, int log)
{
    kinds = 0;
    snprintf(root, sizeof root, "%s", below);
    root_length = strlen(root);
    fired[0] = 0;
    fails_at = at, error = with, lasting = always, log_to = log;
    atomic_store(&count, 0);
    kinds = chosen;
}

EXPORT long faults_count(void) { return atomic_load(&count); }

/* The path of the call that failed, "" while none has. */
EXPORT const char *faults_fired(void) { return fired; }

static void link_of(int descriptor, char *path)
{
    char name[64];
    ssize_t length;
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    length = readlink(name, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
}

static void whole_path(int folder, const char *path, char *whole)
{
    size_t length;
    if (path[0] == '/') {
        snprintf(whole, PATH_MAX, "%s", path);
        return;
    }
    if (folder != AT_FDCWD)
        link_of(folder, whole);
    else if (!getcwd(whole, PATH_MAX))
        whole[0] = 0;
    length = strlen(whole);
    snprintf(whole + length, PATH_MAX - length, "/%s", path);
}

static int is_below(const char *path)
{
    return !strncmp(path, root, root_length) && (!path[root_length] || path[root_length] == '/');
}

static void write_log(int kind, const char *path)
{
    char line[PATH_MAX + 16];
    int length = snprintf(line, sizeof line, "%d %s\n", kind, path);
    if (log_to >= 0)
        syscall(SYS_write, log_to, line, length);
}

/* Whether this call fails; errno is set then. */
static int fails(int kind, const char *path)
{
    long number;
    if (!is_below(path))
        return 0;
    number = atomic_fetch_add(&count, 1) + 1;
    write_log(kind, path);
    if (!fails_at || (lasting ? number < fails_at : number != fails_at))
        return 0;
    if (error == KILL)
        kill(getpid(), SIGKILL);
    if (!fired[0])
        snprintf(fired, sizeof fired, "%s", path);
    errno = error;
    return 1;
}

static int fails_by_path(int kind, int folder, const char *path)
{
    char whole[PATH_MAX];
    if (!(kinds & kind) || !path)
        return 0;
    whole_path(folder, path, whole);
    return fails(kind, whole);
}

static int fails_by_descriptor(int kind, int descriptor)
{
    char path[PATH_MAX];
    if (!(kinds & kind))
        return 0;
    link_of(descriptor, path);
    return fails(kind, path);
}

#define REAL(name) \
    static typeof(&name) real; \
    if (!real) \
        real = (typeof(&name))dlsym(RTLD_NEXT, #name)

#define MODE_OF(flags, mode) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

#define OPENS(name) \
    EXPORT int name(const char *path, int flags, ...) \
    { \
        REAL(name); \
        MODE_OF(flags, mode) \
        return fails_by_path(OPEN, AT_FDCWD, path) ? -1 : real(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name) \
    EXPORT int name(int folder, const char *path, int flags, ...) \
    { \
        REAL(name); \
        MODE_OF(flags, mode) \
        return fails_by_path(OPEN, folder, path) ? -1 : real(folder, path, flags, mode); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define OPENS_STREAM(name) \
    EXPORT FILE *name(const char *path, const char *mode) \
    { \
        REAL(name); \
        return fails_by_path(OPEN, AT_FDCWD, path) ? NULL : real(path, mode); \
    }
OPENS_STREAM(fopen)
OPENS_STREAM(fopen64)

EXPORT ssize_t write(int to, const void *from, size_t size)
{
    REAL(write);
    return fails_by_descriptor(WRITE, to) ? -1 : real(to, from, size);
}

EXPORT ssize_t pwrite(int to, const void *from, size_t size, off_t place)
{
    REAL(pwrite);
    return fails_by_descriptor(WRITE, to) ? -1 : real(to, from, size, place);
}

EXPORT ssize_t pwrite64(int to, const void *from, size_t size, off64_t place)
{
    REAL(pwrite64);
    return fails_by_descriptor(WRITE, to) ? -1 : real(to, from, size, place);
}

EXPORT ssize_t writev(int to, const struct iovec *from, int parts)
{
    REAL(writev);
    return fails_by_descriptor(WRITE, to) ? -1 : real(to, from, parts);
}

EXPORT size_t fwrite(const void *from, size_t size, size_t times, FILE *to)
{
    REAL(fwrite);
    return fails_by_descriptor(WRITE, fileno(to)) ? 0 : real(from, size, times, to);
}

ssize_t sendfile(int to, int from, off_t *place, size_t size);
EXPORT ssize_t sendfile(int to, int from, off_t *place, size_t size)
{
    REAL(sendfile);
    return fails_by_descriptor(WRITE, to) ? -1 : real(to, from, place, size);
}

ssize_t sendfile64(int to, int from, off64_t *place, size_t size);
EXPORT ssize_t sendfile64(int to, int from, off64_t *place, size_t size)
{
    REAL(sendfile64);
    return fails_by_descriptor(WRITE, to) ? -1 : real(to, from, place, size);
}

EXPORT int fsync(int of)
{
    REAL(fsync);
    return fails_by_descriptor(FSYNC, of) ? -1 : real(of);
}

EXPORT int fdatasync(int of)
{
    REAL(fdatasync);
    return fails_by_descriptor(FSYNC, of) ? -1 : real(of);
}

EXPORT int rename(const char *was, const char *is)
{
    REAL(rename);
    return fails_by_path(RENAME, AT_FDCWD, is) ? -1 : real(was, is);
}

EXPORT int renameat(int from, const char *was, int to, const char *is)
{
    REAL(renameat);
    return fails_by_path(RENAME, to, is) ? -1 : real(from, was, to, is);
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    return fails_by_path(MKDIR, AT_FDCWD, path) ? -1 : real(path, mode);
}

EXPORT int mkdirat(int folder, const char *path, mode_t mode)
{
    REAL(mkdirat);
    return fails_by_path(MKDIR, folder, path) ? -1 : real(folder, path, mode);
}

EXPORT int link(const char *was, const char *is)
{
    REAL(link);
    return fails_by_path(LINK, AT_FDCWD, is) ? -1 : real(was, is);
}

EXPORT int linkat(int from, const char *was, int to, const char *is, int flags)
{
    REAL(linkat);
    return fails_by_path(LINK, to, is) ? -1 : real(from, was, to, is, flags);
}

EXPORT int symlink(const char *was, const char *is)
{
    REAL(symlink);
    return fails_by_path(LINK, AT_FDCWD, is) ? -1 : real(was, is);
}

EXPORT int symlinkat(const char *was, int to, const char *is)
{
    REAL(symlinkat);
    return fails_by_path(LINK, to, is) ? -1 : real(was, to, is);
}

EXPORT int flock(int of, int how)
{
    REAL(flock);
    return fails_by_descriptor(LOCK, of) ? -1 : real(of, how);
}

#define CONTROLS(name) \
    EXPORT int name(int of, int command, ...) \
    { \
        REAL(name); \
        va_list more; \
        va_start(more, command); \
        void *with = va_arg(more, void *); \
        va_end(more); \
        int locks = command == F_SETLK || command == F_SETLKW; \
        return locks && fails_by_descriptor(LOCK, of) ? -1 : real(of, command, with); \
    }
CONTROLS(fcntl)
CONTROLS(fcntl64)

static void shift_clock(time_t *seconds)
{
    static time_t began;
    const char *by = getenv("FAULTS_CLOCK");
    if (!began)
        began = *seconds;
    if (getenv("FAULTS_BACKWARDS"))
        *seconds = began - (*seconds - began);
    if (by)
        *seconds += atol(by);
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME)
        shift_clock(&now->tv_sec);
    return failed;
}

EXPORT int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    static int (*real)(struct timeval *, void *);
    if (!real)
        real = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(now, zone);
    if (!failed)
        shift_clock(&now->tv_sec);
    return failed;
}

EXPORT time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}
