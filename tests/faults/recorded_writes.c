/* What a process writes to the files of RECORDED_FOLDER, and when it has them on the disk, in the
 * order in which it happens, appended to the file RECORDED_LOG: preloaded, so that nothing of the
 * process is changed. An entry is its kind, the file's name in 16 bytes, an offset, a size and the
 * bytes. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct entry {
    int64_t kind, offset, size;
    char name[16];
};

enum { WRITTEN = 1, CUT = 2, SYNCED = 3, REMOVED = 4 };

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* The file's name within the folder, or 0 where it is not in it. */
static const char *within(const char *path)
{
    const char *folder = getenv("RECORDED_FOLDER");
    size_t length = folder ? strlen(folder) : 0;
    int inside = length && !strncmp(path, folder, length) && path[length] == '/';
    return inside ? path + length + 1 : 0;
}

static void
record_path(int64_t kind, const char *path, const void *bytes, size_t size, int64_t offset)
{
    static int log = -1;
    struct entry entry = {.kind = kind, .offset = offset, .size = (int64_t)size};
    const char *name = within(path);
    if (!name)
        return;
    strncpy(entry.name, name, sizeof entry.name - 1);
    if (log < 0)
        log = open(getenv("RECORDED_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    struct iovec parts[] = {{&entry, sizeof entry}, {(void *)bytes, size}};
    if (writev(log, parts, 2) != (ssize_t)(sizeof entry + size))
        abort();
}

static void record(int64_t kind, int fd, const void *bytes, size_t size, int64_t offset)
{
    char link[32], path[512] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) > 0)
        record_path(kind, path, bytes, size, offset);
}

static ssize_t written(int fd, const void *bytes, size_t size, off_t offset)
{
    pthread_mutex_lock(&turn);
    ssize_t done = syscall(SYS_pwrite64, fd, bytes, size, offset);
    if (done > 0)
        record(WRITTEN, fd, bytes, (size_t)done, offset);
    pthread_mutex_unlock(&turn);
    return done;
}

static int synced(int fd)
{
    pthread_mutex_lock(&turn);
    record(SYNCED, fd, "", 0, 0);
    pthread_mutex_unlock(&turn);
    return 0;
}

static int cut(int fd, off_t size)
{
    pthread_mutex_lock(&turn);
    int done = (int)syscall(SYS_ftruncate, fd, size);
    if (!done)
        record(CUT, fd, "", 0, size);
    pthread_mutex_unlock(&turn);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    return written(fd, bytes, size, offset);
}
ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset)
{
    return written(fd, bytes, size, offset);
}
int fsync(int fd) { return synced(fd); }
int fdatasync(int fd) { return synced(fd); }
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }
int unlink(const char *path)
{
    pthread_mutex_lock(&turn);
    int done = (int)syscall(SYS_unlink, path);
    if (!done)
        record_path(REMOVED, path, "", 0, 0);
    pthread_mutex_unlock(&turn);
    return done;
}
