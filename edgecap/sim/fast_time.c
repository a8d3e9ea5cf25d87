/* Time that runs N times as fast for the program that this is preloaded into (fast_time.py builds and sets it).
 *
 * The seam is the C library: clocks are ahead of the real ones, further with every moment, waits are N times as
 * short, and deadlines are turned back into real time. N and how far the clocks are ahead stand in a file of
 * four numbers (`struct pace`) that all programs of one world map, so that their clocks agree, and that changes
 * while they run; a wait that has begun keeps the pace at which it began. The kernel's own timers (TCP, times of
 * files) stay in real time. Linux, glibc 2.34 or newer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)
#define KERNEL_SIGSET_BYTES 8

struct pace {
    int64_t writes;   /* odd while it is being written */
    int64_t since_ns; /* CLOCK_MONOTONIC_RAW, real, when this pace began */
    int64_t ahead_ns; /* of the clocks at that moment */
    int64_t speed;
};

static const struct pace *shared;

__attribute__((constructor)) static void find_pace(void)
{
    const char *path = getenv("FAST_TIME");
    const int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    void *found = mmap(NULL, sizeof(struct pace), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED)
        shared = found;
}

static struct pace pace_now(void)
{
    struct pace found = {0, 0, 0, 1};
    int64_t before, after;
    if (shared == NULL)
        return found;
    do {
        before = __atomic_load_n(&shared->writes, __ATOMIC_ACQUIRE);
        found.since_ns = __atomic_load_n(&shared->since_ns, __ATOMIC_RELAXED);
        found.ahead_ns = __atomic_load_n(&shared->ahead_ns, __ATOMIC_RELAXED);
        found.speed = __atomic_load_n(&shared->speed, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        after = __atomic_load_n(&shared->writes, __ATOMIC_RELAXED);
    } while (before != after || before % 2 != 0);
    return found;
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

#define NEXT(name) \
    static __typeof__(name) *real; \
    if (real == NULL) \
    real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Clocks. */

static int real_clock(clockid_t clock, struct timespec *out)
{
    NEXT(clock_gettime);
    return real(clock, out);
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    struct timespec raw;
    if (!is_wall_or_boot(clock) || shared == NULL)
        return real_clock(clock, out);
    const struct pace pace = pace_now();
    if (real_clock(clock, out) != 0)
        return -1;
    if (clock == CLOCK_MONOTONIC_RAW)
        raw = *out;
    else
        real_clock(CLOCK_MONOTONIC_RAW, &raw);
    *out = timespec_of(ns_of(out) + pace.ahead_ns + (ns_of(&raw) - pace.since_ns) * (pace.speed - 1));
    return 0;
}

/* Waits are rounded up: nothing may wake before its time has come. */
static struct timespec shortened(int64_t fast_ns)
{
    const int64_t speed = pace_now().speed;
    return timespec_of(fast_ns <= 0 ? 0 : (fast_ns + speed - 1) / speed);
}

static struct timespec real_deadline(clockid_t clock, const struct timespec *fast)
{
    struct timespec now, real_now;
    clock_gettime(clock, &now);
    real_clock(clock, &real_now);
    const struct timespec left = shortened(ns_of(fast) - ns_of(&now));
    return timespec_of(ns_of(&real_now) + ns_of(&left));
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
        *left = timespec_of(ns_of(left) * pace_now().speed);
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
