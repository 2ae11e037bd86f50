/* What a disk that fails and a clock that jumps look like to one process: loaded into it before the C library.
 *
 * FAULT_FSYNC names a file: while it is there, bringing any file of the store to the disk fails with EIO.
 * FAULT_CLOCK names a file: the seconds it says are added to the time of day.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int fails(int descriptor)
{
    const char *switched_on = getenv("FAULT_FSYNC");
    char link[64], path[4096];
    if (switched_on == NULL || access(switched_on, F_OK) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = '\0';
    return strstr(path, "store.db") != NULL;
}

static int to_disk(long number, int descriptor)
{
    if (fails(descriptor)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(number, descriptor);
}

int fsync(int descriptor) { return to_disk(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return to_disk(SYS_fdatasync, descriptor); }

static long jump(void)
{
    const char *told = getenv("FAULT_CLOCK");
    char text[32] = "0";
    int descriptor = told == NULL ? -1 : open(told, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0) {
        ssize_t length = read(descriptor, text, sizeof text - 1);
        text[length < 0 ? 0 : length] = '\0';
        close(descriptor);
    }
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME)
        now->tv_sec += jump();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where != NULL)
        *where = now.tv_sec;
    return now.tv_sec;
}
