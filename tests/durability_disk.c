/* A disk that logs, delays or fails, for one program: LD_PRELOAD this.
 *
 * EDGED_DISK_FILES    what a path must hold to be on this disk
 * EDGED_DISK_CONTROL  24 bytes, mapped, of int32: whether syncs wait until this is 0, milliseconds that a sync takes,
 *                     errno of syncs, errno of writes, errno of reads (0: none), from which offset on reads fail
 * EDGED_DISK_LOG      gets a line when something has happened:
 *     write NAME OFFSET HEX     truncate NAME SIZE     unlink NAME     sync-begin NAME     sync-end NAME ERRNO
 *     send FD HEX               before the bytes are given to a socket
 *     loop NAME                 the program's first thread is about to do one of these itself, or to read
 * Each line is one write to a file opened for appending, so the order of the lines is the order of what they tell.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct control { int32_t hold, delay_ms, sync_errno, write_errno, read_errno, read_from; };

static volatile struct control *control;
static const char *files;
static int log_fd = -1;

/* When the program begins, and again in a fork that gets its environment later. */
__attribute__((constructor)) void start_disk(void)
{
    const char *path = getenv("EDGED_DISK_CONTROL"), *log = getenv("EDGED_DISK_LOG");
    int fd;
    const char *named = getenv("EDGED_DISK_FILES");
    files = named ? strdup(named) : NULL;
    if (!files || !path || !log || (fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) {
        control = mapped;
        log_fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    }
}

static void say(const char *format, ...)
{
    char line[512];
    va_list rest;
    va_start(rest, format);
    int length = vsnprintf(line, sizeof line, format, rest);
    va_end(rest);
    int before = errno;
    syscall(SYS_write, log_fd, line, length);
    errno = before;
}

static void say_bytes(const char *head, const unsigned char *data, size_t size)
{
    int before = errno;
    size_t length = strlen(head);
    char *line = malloc(length + 2 * size + 2);
    memcpy(line, head, length);
    for (size_t at = 0; at < size; at++, length += 2)
        sprintf(line + length, "%02x", data[at]);
    line[length++] = '\n';
    syscall(SYS_write, log_fd, line, length);
    free(line);
    errno = before;
}

/* The last part of the path behind a descriptor on this disk, or NULL. */
static const char *name_of(int fd, char *path, size_t size)
{
    const char *name;
    char link[40];
    if (!control || log_fd < 0)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0)
        return NULL;
    path[length] = 0;
    if (!strstr(path, files))
        return NULL;
    name = strrchr(path, '/') + 1;
    if (syscall(SYS_gettid) == getpid())
        say("loop %s\n", name);
    return name;
}

static int sync_of(const char *symbol, int fd)
{
    char path[256];
    const char *name = name_of(fd, path, sizeof path);
    int (*real)(int) = dlsym(RTLD_NEXT, symbol);
    if (!name)
        return real(fd);
    say("sync-begin %s\n", name);
    struct timespec pause = {control->delay_ms / 1000, control->delay_ms % 1000 * 1000000L};
    nanosleep(&pause, NULL);
    pause = (struct timespec){0, 2000000L};
    while (control->hold)
        nanosleep(&pause, NULL);
    int failed = control->sync_errno, result = -1;
    if (failed)
        errno = failed;
    else
        result = real(fd);
    say("sync-end %s %d\n", name, result ? errno : 0);
    return result;
}

int fsync(int fd) { return sync_of("fsync", fd); }
int fdatasync(int fd) { return sync_of("fdatasync", fd); }

static ssize_t write_of(int fd, const void *data, size_t size, off_t offset, int at_offset)
{
    char path[256], head[320];
    const char *name = name_of(fd, path, sizeof path);
    if (name && control->write_errno) {
        errno = control->write_errno;
        return -1;
    }
    if (name && !at_offset)
        offset = lseek(fd, 0, SEEK_CUR);
    ssize_t written = at_offset ? syscall(SYS_pwrite64, fd, data, size, offset) : syscall(SYS_write, fd, data, size);
    if (name && written > 0) {
        snprintf(head, sizeof head, "write %s %lld ", name, (long long)offset);
        say_bytes(head, data, written);
    }
    return written;
}

ssize_t write(int fd, const void *data, size_t size) { return write_of(fd, data, size, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return write_of(fd, data, size, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return write_of(fd, data, size, offset, 1); }

static ssize_t read_of(int fd, void *data, size_t size, off_t offset, int at_offset)
{
    char path[256];
    const char *name = name_of(fd, path, sizeof path);
    if (name && at_offset && control->read_errno && offset >= control->read_from) {
        errno = control->read_errno;
        return -1;
    }
    return at_offset ? syscall(SYS_pread64, fd, data, size, offset) : syscall(SYS_read, fd, data, size);
}

ssize_t read(int fd, void *data, size_t size) { return read_of(fd, data, size, 0, 0); }
ssize_t pread(int fd, void *data, size_t size, off_t offset) { return read_of(fd, data, size, offset, 1); }
ssize_t pread64(int fd, void *data, size_t size, off_t offset) { return read_of(fd, data, size, offset, 1); }

static int truncate_of(int fd, off_t size)
{
    char path[256];
    const char *name = name_of(fd, path, sizeof path);
    if (name && control->write_errno) {
        errno = control->write_errno;
        return -1;
    }
    int result = syscall(SYS_ftruncate, fd, size);
    if (name && !result)
        say("truncate %s %lld\n", name, (long long)size);
    return result;
}

int ftruncate(int fd, off_t size) { return truncate_of(fd, size); }
int ftruncate64(int fd, off_t size) { return truncate_of(fd, size); }

int unlink(const char *path)
{
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (!result && control && log_fd >= 0 && strstr(path, files))
        say("unlink %s\n", strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
    return result;
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    char head[32];
    if (control && log_fd >= 0 && size > 1) {
        snprintf(head, sizeof head, "send %d ", fd);
        say_bytes(head, data, size);
    }
    return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
}
