/* Time that runs N times as fast for the program that this is preloaded into (fast_time.py builds and sets it).
 *
 * The seam is the C library: clocks are read N times as large, waits are N times as short, and deadlines are
 * turned back into real time. FAST_TIME holds N, FAST_TIME_ORIGIN the UTC second at which the fast wall clock
 * agrees with the real one; clocks that count from the boot agree at zero, so that processes agree as well.
 * The kernel's own timers (TCP, files' times) stay in real time. Linux, glibc 2.34 or newer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)
#define KERNEL_SIGSET_BYTES 8

static int64_t speed(void)
{
    static int64_t n;
    if (n == 0) {
        const char *text = getenv("FAST_TIME");
        const int64_t found = text == NULL ? 1 : atoll(text);
        n = found > 0 ? found : 1;
    }
    return n;
}

/* The instant, on this clock, at which fast and real time agree. */
static int64_t origin_ns(clockid_t clock)
{
    static int64_t wall_s;
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)
        return 0;
    if (wall_s == 0) {
        const char *text = getenv("FAST_TIME_ORIGIN");
        wall_s = text == NULL ? 0 : atoll(text);
    }
    return wall_s * SECOND;
}

static int is_wall_or_boot(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC ||
           clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_BOOTTIME;
}

static int64_t ns_of(const struct timespec *t) { return (int64_t)t->tv_sec * SECOND + t->tv_nsec; }

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND)};
}

/* Waits are rounded up: nothing may wake before its time has come. */
static struct timespec shortened(int64_t fast_ns)
{
    return timespec_of(fast_ns <= 0 ? 0 : (fast_ns + speed() - 1) / speed());
}

static struct timespec real_deadline(clockid_t clock, const struct timespec *fast)
{
    const int64_t origin = origin_ns(clock);
    return timespec_of(origin + (ns_of(fast) - origin + speed() - 1) / speed());
}

#define NEXT(name) \
    static __typeof__(name) *real; \
    if (real == NULL) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Clocks. */

int clock_gettime(clockid_t clock, struct timespec *out)
{
    NEXT(clock_gettime);
    const int failed = real(clock, out);
    if (failed == 0 && is_wall_or_boot(clock)) {
        const int64_t origin = origin_ns(clock);
        *out = timespec_of(origin + (ns_of(out) - origin) * speed());
    }
    return failed;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec t;
    (void)zone;
    const int failed = clock_gettime(CLOCK_REALTIME, &t);
    if (failed == 0)
        *out = (struct timeval){.tv_sec = t.tv_sec, .tv_usec = t.tv_nsec / 1000};
    return failed;
}

time_t time(time_t *out)
{
    struct timespec t = {0, 0};
    clock_gettime(CLOCK_REALTIME, &t);
    if (out != NULL)
        *out = t.tv_sec;
    return t.tv_sec;
}

/* Sleeps. What is left of an interrupted one is told in fast time. */

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left)
{
    NEXT(clock_nanosleep);
    if (flags & TIMER_ABSTIME) {
        const struct timespec until = real_deadline(clock, wanted);
        return real(clock, flags, &until, left);
    }
    const struct timespec length = shortened(ns_of(wanted));
    const int error = real(clock, flags, &length, left);
    if (error == EINTR && left != NULL)
        *left = timespec_of(ns_of(left) * speed());
    return error;
}

int nanosleep(const struct timespec *wanted, struct timespec *left)
{
    const int error = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}

int usleep(useconds_t us)
{
    const struct timespec wanted = timespec_of((int64_t)us * 1000);
    return nanosleep(&wanted, NULL);
}

unsigned int sleep(unsigned int seconds)
{
    const struct timespec wanted = {.tv_sec = seconds, .tv_nsec = 0};
    struct timespec left = {0, 0};
    return nanosleep(&wanted, &left) == 0 ? 0 : (unsigned int)left.tv_sec;
}

/* Waits for descriptors; the finest call of each family is used, so that a millisecond can be divided. */

int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *fast, const sigset_t *mask)
{
    struct timespec wait;
    if (fast != NULL)
        wait = shortened(ns_of(fast));
    return (int)syscall(SYS_ppoll, fds, n, fast == NULL ? NULL : &wait, mask, KERNEL_SIGSET_BYTES);
}

int poll(struct pollfd *fds, nfds_t n, int ms)
{
    const struct timespec fast = timespec_of((int64_t)ms * 1000000);
    return ppoll(fds, n, ms < 0 ? NULL : &fast, NULL);
}

int epoll_pwait2(int epfd, struct epoll_event *events, int most, const struct timespec *fast,
                 const sigset_t *mask)
{
    struct timespec wait;
    if (fast != NULL)
        wait = shortened(ns_of(fast));
    return (int)syscall(SYS_epoll_pwait2, epfd, events, most, fast == NULL ? NULL : &wait, mask,
                        KERNEL_SIGSET_BYTES);
}

int epoll_pwait(int epfd, struct epoll_event *events, int most, int ms, const sigset_t *mask)
{
    const struct timespec fast = timespec_of((int64_t)ms * 1000000);
    return epoll_pwait2(epfd, events, most, ms < 0 ? NULL : &fast, mask);
}

int epoll_wait(int epfd, struct epoll_event *events, int most, int ms)
{
    return epoll_pwait(epfd, events, most, ms, NULL);
}

int pselect(int n, fd_set *in, fd_set *out, fd_set *bad, const struct timespec *fast, const sigset_t *mask)
{
    NEXT(pselect);
    struct timespec wait;
    if (fast != NULL)
        wait = shortened(ns_of(fast));
    return real(n, in, out, bad, fast == NULL ? NULL : &wait, mask);
}

int select(int n, fd_set *in, fd_set *out, fd_set *bad, struct timeval *fast)
{
    struct timespec wait;
    if (fast != NULL)
        wait = timespec_of((int64_t)fast->tv_sec * SECOND + (int64_t)fast->tv_usec * 1000);
    return pselect(n, in, out, bad, fast == NULL ? NULL : &wait, NULL);
}

/* Waits of threads, by deadline. */

int sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *fast)
{
    NEXT(sem_clockwait);
    const struct timespec until = real_deadline(clock, fast);
    return real(sem, clock, &until);
}

int sem_timedwait(sem_t *sem, const struct timespec *fast) { return sem_clockwait(sem, CLOCK_REALTIME, fast); }

int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *fast)
{
    NEXT(pthread_cond_clockwait);
    const struct timespec until = real_deadline(clock, fast);
    return real(cond, mutex, clock, &until);
}

/* A condition's clock cannot be asked for; no machine has been up for thirty years. */
int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *fast)
{
    const clockid_t clock = fast->tv_sec >= SECOND ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    return pthread_cond_clockwait(cond, mutex, clock, fast);
}
