/* A wall clock that can be set, for one process: LD_PRELOAD this, with STEPPED_CLOCK naming a file
 * of one little-endian int64, the seconds by which the clock is off.
 *
 * It behaves as a clock that was really set. A wait until an instant of the wall clock ends when
 * that clock shows the instant: early after a step ahead, late after a step back. The clocks of the
 * uptime are untouched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 50000000L     /* how soon a wait follows a step */
#define UPTIME_S 1000000000L   /* instants below it are of an uptime, not of this century */
#define SECOND_NS 1000000000L

static volatile const int64_t *off_s;

static int real_gettime(clockid_t id, struct timespec *at) {
    static int (*of_libc)(clockid_t, struct timespec *);
    if (!of_libc) *(void **)&of_libc = dlsym(RTLD_NEXT, "clock_gettime");
    return of_libc(id, at);
}

__attribute__((constructor)) static void open_clock(void) {
    const char *path = getenv("STEPPED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof *off_s, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) off_s = page;
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int done = real_gettime(id, at);
    if (done == 0 && off_s && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        at->tv_sec += *off_s;
    return done;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, at) == 0 ? base : 0;
}

static int is_past(const struct timespec *until) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec > until->tv_sec ||
           (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec);
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    if (until->tv_sec < UPTIME_S)
        return pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, until);
    while (!is_past(until)) {
        struct timespec slice;
        real_gettime(CLOCK_MONOTONIC, &slice);
        slice.tv_nsec += SLICE_NS;
        if (slice.tv_nsec >= SECOND_NS) {
            slice.tv_nsec -= SECOND_NS;
            slice.tv_sec += 1;
        }
        int done = pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &slice);
        if (done != ETIMEDOUT) return done;
    }
    return ETIMEDOUT;
}

/* What librdkafka calls. In glibc, cnd_t and mtx_t are pthread_cond_t and pthread_mutex_t. */
int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex,
                  const struct timespec *restrict until) {
    int done = pthread_cond_timedwait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex, until);
    return done == 0 ? thrd_success : done == ETIMEDOUT ? thrd_timedout : thrd_error;
}
