/* Counts the operations that change files below one directory, and at a chosen one kills the process or fails the write; or copies the
 * directory at every so many, as a kill there would leave it.
 *
 * Loaded with LD_PRELOAD; does nothing until tw_arm is called (through ctypes). Operations: opening for writing, write, rename,
 * unlink, mkdir, rmdir, truncate, fsync, link. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNT = 0, KILL = 1, TEAR = 2, FULL = 3, COPY = 4 };
static int armed, mode;
static long number, target, room;
static char root[PATH_MAX], copies[PATH_MAX];
static char journal[1 << 20];
static size_t journal_used;

void tw_arm(const char *directory, int how, long at, const char *into) {
    strncpy(root, directory, sizeof root - 1);
    strncpy(copies, into, sizeof copies - 1);
    mode = how; target = at; room = at; number = 0; journal_used = 0; journal[0] = 0; armed = 1;
}
long tw_count(void) { return number; }
const char *tw_journal(void) { return journal; }

static int below(const char *path) { return armed && path && !strncmp(path, root, strlen(root)); }
static int fd_below(int fd, char *path) {
    char link[64];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    return below(path);
}
static int at_below(int fd, const char *name, char *path) {
    if (!armed || !name) return 0;
    if (name[0] == '/') { strncpy(path, name, PATH_MAX - 1); return below(name); }
    char base[PATH_MAX];
    if (fd == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
    else { char link[64]; snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
           ssize_t size = readlink(link, base, sizeof base - 1); if (size <= 0) return 0; base[size] = 0; }
    if ((size_t)snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return 0;
    return below(path);
}
/* Copies the directory to `<copies>/<number>`; nothing is made there while it does not exist. */
static void copy(void) {
    char target_directory[PATH_MAX + 32];
    int error = errno, status;
    pid_t child;
    snprintf(target_directory, sizeof target_directory, "%s/%ld", copies, number);
    char *words[] = {"cp", "-a", root, target_directory, NULL}, *no_preload[] = {NULL};
    if (!access(root, F_OK) && !posix_spawnp(&child, "cp", NULL, NULL, words, no_preload))
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    errno = error;
}
/* One operation. In KILL mode the process ends before operation `target` (counted from 1), in TEAR mode in its middle if it is a
 * write. In COPY mode the directory is copied before each operation whose number `target` divides, or in its middle if it is a write
 * with an odd number. Returns whether this write is to be cut in two. */
static int operation(const char *what, const char *path) {
    number++;
    if (mode == COUNT || mode == COPY) {
        int size = snprintf(journal + journal_used, sizeof journal - journal_used, "%s %s\n", what, path + strlen(root));
        if (size > 0 && journal_used + size < sizeof journal) journal_used += size;
    }
    if (mode == KILL && number == target) kill(getpid(), SIGKILL);
    if (mode == TEAR && number == target && strcmp(what, "write")) kill(getpid(), SIGKILL);
    int chosen = mode == COPY && number % target == 0, torn = number % 2 && !strcmp(what, "write");
    if (chosen && !torn) copy();
    return (mode == TEAR && number == target) || (chosen && torn);
}
/* In the middle of a write. */
static void middle(void) { if (mode == COPY) copy(); else kill(getpid(), SIGKILL); }

/* A write is journaled as `write <path> <bytes>`. */
static int writes(const char *path, size_t size) {
    char both[PATH_MAX + 32];
    snprintf(both, sizeof both, "%s %zu", path, size);
    return operation("write", both);
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define MODE_ARGUMENT mode_t bits = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); bits = va_arg(list, mode_t); va_end(list); }

static int full(void) { if (mode == FULL && room <= 0) { errno = ENOSPC; return 1; } return 0; }

int open(const char *path, int flags, ...) { REAL(int, "open", const char *, int, ...) MODE_ARGUMENT char p[PATH_MAX];
    if (WRITES(flags) && at_below(AT_FDCWD, path, p)) { if ((flags & O_CREAT) && full()) return -1; operation("open", p); } return real(path, flags, bits); }
int open64(const char *path, int flags, ...) { REAL(int, "open64", const char *, int, ...) MODE_ARGUMENT char p[PATH_MAX];
    if (WRITES(flags) && at_below(AT_FDCWD, path, p)) { if ((flags & O_CREAT) && full()) return -1; operation("open", p); } return real(path, flags, bits); }
int openat(int fd, const char *path, int flags, ...) { REAL(int, "openat", int, const char *, int, ...) MODE_ARGUMENT char p[PATH_MAX];
    if (WRITES(flags) && at_below(fd, path, p)) operation("open", p); return real(fd, path, flags, bits); }
int openat64(int fd, const char *path, int flags, ...) { REAL(int, "openat64", int, const char *, int, ...) MODE_ARGUMENT char p[PATH_MAX];
    if (WRITES(flags) && at_below(fd, path, p)) operation("open", p); return real(fd, path, flags, bits); }
ssize_t write(int fd, const void *data, size_t size) { REAL(ssize_t, "write", int, const void *, size_t) char p[PATH_MAX];
    if (fd > 2 && fd_below(fd, p)) {
        if (mode == FULL) { if (room <= 0) { errno = ENOSPC; return -1; } if ((long)size > room) size = room; room -= size; }
        if (writes(p, size)) { ssize_t half = real(fd, data, size / 2); middle();
                               if (half > 0) { ssize_t rest = real(fd, (const char *)data + half, size - half); return rest < 0 ? rest : half + rest; } } }
    return real(fd, data, size); }
ssize_t writev(int fd, const struct iovec *parts, int count) { REAL(ssize_t, "writev", int, const struct iovec *, int) char p[PATH_MAX];
    if (fd > 2 && fd_below(fd, p)) {
        if (mode == FULL) { size_t size = 0; for (int i = 0; i < count; i++) size += parts[i].iov_len;
                            if ((long)size > room) { errno = ENOSPC; return -1; } room -= size; }
        size_t all = 0; for (int i = 0; i < count; i++) all += parts[i].iov_len;
        if (writes(p, all)) middle(); }
    return real(fd, parts, count); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t) char p[PATH_MAX];
    if (fd > 2 && fd_below(fd, p)) { if (full()) return -1; if (mode == FULL) room -= size;
        if (writes(p, size)) { real(fd, data, size / 2, at); middle(); } }
    return real(fd, data, size, at); }
int ftruncate64(int fd, off64_t size) { REAL(int, "ftruncate64", int, off64_t) char p[PATH_MAX];
    if (fd_below(fd, p)) operation("truncate", p); return real(fd, size); }
int ftruncate(int fd, off_t size) { REAL(int, "ftruncate", int, off_t) char p[PATH_MAX];
    if (fd_below(fd, p)) operation("truncate", p); return real(fd, size); }
/* Counted and not done: a killed process leaves what it wrote to the system, and the loss of power is told from the journal. */
int fsync(int fd) { char p[PATH_MAX]; if (fd_below(fd, p)) operation("fsync", p); return fcntl(fd, F_GETFD) < 0 ? -1 : 0; }
int fdatasync(int fd) { return fsync(fd); }
/* A rename is journaled as `rename <to> < <from>`. */
static void renames(int from_fd, const char *from, int to_fd, const char *to) {
    char target[PATH_MAX], source[PATH_MAX], both[2 * PATH_MAX + 4];
    if (!at_below(to_fd, to, target)) return;
    int known = at_below(from_fd, from, source);
    snprintf(both, sizeof both, "%s < %s", target, known ? source + strlen(root) : from);
    operation("rename", both);
}
int rename(const char *from, const char *to) { REAL(int, "rename", const char *, const char *)
    renames(AT_FDCWD, from, AT_FDCWD, to); return real(from, to); }
int renameat(int ff, const char *from, int tf, const char *to) { REAL(int, "renameat", int, const char *, int, const char *)
    renames(ff, from, tf, to); return real(ff, from, tf, to); }
int unlink(const char *path) { REAL(int, "unlink", const char *) char p[PATH_MAX];
    if (at_below(AT_FDCWD, path, p)) operation("unlink", p); return real(path); }
int unlinkat(int fd, const char *path, int flags) { REAL(int, "unlinkat", int, const char *, int) char p[PATH_MAX];
    if (at_below(fd, path, p)) operation("unlink", p); return real(fd, path, flags); }
int mkdir(const char *path, mode_t bits) { REAL(int, "mkdir", const char *, mode_t) char p[PATH_MAX];
    if (at_below(AT_FDCWD, path, p)) { if (full()) return -1; operation("mkdir", p); } return real(path, bits); }
int rmdir(const char *path) { REAL(int, "rmdir", const char *) char p[PATH_MAX];
    if (at_below(AT_FDCWD, path, p)) operation("rmdir", p); return real(path); }
int link(const char *from, const char *to) { REAL(int, "link", const char *, const char *) char p[PATH_MAX];
    if (at_below(AT_FDCWD, to, p)) operation("link", p); return real(from, to); }
int symlink(const char *from, const char *to) { REAL(int, "symlink", const char *, const char *) char p[PATH_MAX];
    if (at_below(AT_FDCWD, to, p)) operation("symlink", p); return real(from, to); }
