/* pool.c - threads for fr_pool_run, the number of CPUs this process may use, and a clock; -DFRUGAL_NO_THREADS leaves one thread.
 *
 * A job is a number of items handed out from an atomic counter.  Whoever calls takes part, and waits only for workers that have
 * begun: a worker that the system has not scheduled in time delays nobody.  Workers spin a few microseconds for the next job,
 * then sleep.  In a forked child the workers do not exist: jobs run in the calling thread. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "isa.h"

static void run_alone(int64_t n, fr_task task, void *ctx) {
    for (int64_t i = 0; i < n; i++)
        task(ctx, i, 0);
}

#if defined(FRUGAL_NO_THREADS)

size_t frugal_pool_bytes(int32_t threads) { return (void)threads, 64; }
frugal_status frugal_pool_start(frugal_pool **pool, void *mem, size_t mem_bytes, int32_t threads) {
    (void)mem, (void)mem_bytes, (void)threads;
    if (!pool)
        return FRUGAL_BAD_ARG;
    *pool = NULL;
    return FRUGAL_OK;
}
void frugal_pool_stop(frugal_pool *pool) { (void)pool; }
int32_t frugal_pool_threads(const frugal_pool *pool) { return (void)pool, 1; }
int32_t frugal_cpu_count(void) { return 1; }
int64_t frugal_clock(void) { return 0; } /* bare metal: give frugal_session_record the board's own */
void fr_pool_run(frugal_pool *pool, int64_t n, fr_task task, void *ctx) {
    (void)pool;
    run_alone(n, task, ctx);
}

#else
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 1024, SPIN_NANOSECONDS = 30000, SPINS_A_LOOK = 64 };

typedef struct worker {
    frugal_pool *pool;
    pthread_t thread;
    int32_t index;
} worker;

struct frugal_pool {
    int32_t threads; /* the caller included */
    pid_t owner;     /* workers exist in this process only */
    pthread_mutex_t mutex;
    pthread_cond_t wake, idle;
    /* The job.  Written by the caller while `open` is 0 and `active` is 0, read by workers that are counted in `active` and then
     * see `open`; both are sequentially consistent, so one of the two sees the other. */
    fr_task task;
    void *ctx;
    int64_t n, each;
    _Alignas(64) atomic_int_fast64_t next;
    _Alignas(64) atomic_uint generation; /* of jobs: a worker joins each at most once */
    atomic_int open, active, waiting, sleepers, stop, busy;
    worker workers[];
};

static void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int64_t frugal_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- workers ---- */

static void take_items(frugal_pool *p, int32_t thread) {
    for (;;) {
        const int64_t first = atomic_fetch_add(&p->next, p->each);
        if (first >= p->n)
            return;
        const int64_t end = first + p->each < p->n ? first + p->each : p->n;
        for (int64_t i = first; i < end; i++)
            p->task(p->ctx, i, thread);
    }
}

static void join_job(frugal_pool *p, int32_t thread) {
    atomic_fetch_add(&p->active, 1);
    if (atomic_load(&p->open))
        take_items(p, thread);
    if (atomic_fetch_sub(&p->active, 1) == 1 && atomic_load(&p->waiting)) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_signal(&p->idle);
        pthread_mutex_unlock(&p->mutex);
    }
}

static bool nothing_new(frugal_pool *p, unsigned seen) { return atomic_load(&p->generation) == seen && !atomic_load(&p->stop); }

static void wait_for_job(frugal_pool *p, unsigned seen) {
    const int64_t end = frugal_clock() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < SPINS_A_LOOK; i++) {
            if (!nothing_new(p, seen))
                return;
            pause_cpu();
        }
    } while (frugal_clock() < end);
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->sleepers, 1);
    while (nothing_new(p, seen))
        pthread_cond_wait(&p->wake, &p->mutex);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->mutex);
}

static void *work(void *arg) {
    const worker *w = arg;
    frugal_pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        wait_for_job(p, seen);
        if (atomic_load(&p->stop))
            return NULL;
        seen = atomic_load(&p->generation);
        join_job(p, w->index);
    }
}

/* ---- jobs ---- */

/* Workers that sleep are woken, but no more than there are items for. */
static void wake_workers(frugal_pool *p, int64_t n) {
    if (atomic_load(&p->sleepers) == 0)
        return;
    pthread_mutex_lock(&p->mutex);
    if (n >= p->threads)
        pthread_cond_broadcast(&p->wake);
    else {
        for (int64_t i = 1; i < n; i++)
            pthread_cond_signal(&p->wake);
    }
    pthread_mutex_unlock(&p->mutex);
}

static void wait_for_workers(frugal_pool *p) {
    const int64_t end = frugal_clock() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < SPINS_A_LOOK; i++) {
            if (atomic_load(&p->active) == 0)
                return;
            pause_cpu();
        }
    } while (frugal_clock() < end);
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->waiting, 1);
    while (atomic_load(&p->active) != 0)
        pthread_cond_wait(&p->idle, &p->mutex);
    atomic_store(&p->waiting, 0);
    pthread_mutex_unlock(&p->mutex);
}

void fr_pool_run(frugal_pool *p, int64_t n, fr_task task, void *ctx) {
    /* busy: two sessions may share a pool; the second one to come works alone. */
    if (!p || n <= 1 || p->threads == 1 || p->owner != getpid() || atomic_exchange(&p->busy, 1)) {
        run_alone(n, task, ctx);
        return;
    }
    p->task = task;
    p->ctx = ctx;
    p->n = n;
    p->each = n / (8 * (int64_t)p->threads) > 1 ? n / (8 * (int64_t)p->threads) : 1;
    atomic_store(&p->next, 0);
    atomic_store(&p->open, 1);
    atomic_fetch_add(&p->generation, 1);
    wake_workers(p, n);
    take_items(p, 0);
    atomic_store(&p->open, 0);
    wait_for_workers(p);
    atomic_store(&p->busy, 0);
}

/* ---- start and stop ---- */

static int32_t clamp_threads(int32_t threads) { return threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads; }

size_t frugal_pool_bytes(int32_t threads) { return sizeof(frugal_pool) + (size_t)clamp_threads(threads) * sizeof(worker); }

/* Workers take no signals: those belong to the program's own threads. */
static bool start_worker(worker *w, const pthread_attr_t *attr) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int failed = pthread_create(&w->thread, attr, work, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failed == 0;
}

frugal_status frugal_pool_start(frugal_pool **pool, void *mem, size_t mem_bytes, int32_t threads) {
    pthread_attr_t attr;
    if (!pool || !mem || (uintptr_t)mem % 64 || mem_bytes < frugal_pool_bytes(threads))
        return FRUGAL_BAD_ARG;
    threads = clamp_threads(threads);
    frugal_pool *p = mem;
    memset(p, 0, frugal_pool_bytes(threads));
    p->threads = 1;
    p->owner = getpid();
    if (pthread_mutex_init(&p->mutex, NULL) || pthread_cond_init(&p->wake, NULL) || pthread_cond_init(&p->idle, NULL))
        return FRUGAL_UNSUPPORTED;
    if (pthread_attr_init(&attr))
        return FRUGAL_UNSUPPORTED;
    (void)pthread_attr_setstacksize(&attr, 1 << 20); /* a hint: the default also does */
    for (int32_t i = 1; i < threads; i++) {
        p->workers[i] = (worker){.pool = p, .index = i};
        if (!start_worker(&p->workers[i], &attr))
            break; /* fewer threads, the same results */
        p->threads = i + 1;
    }
    pthread_attr_destroy(&attr);
    *pool = p;
    return FRUGAL_OK;
}

void frugal_pool_stop(frugal_pool *p) {
    if (!p || p->owner != getpid())
        return;
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->stop, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    for (int32_t i = 1; i < p->threads; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->idle);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    p->threads = 1;
}

int32_t frugal_pool_threads(const frugal_pool *pool) { return pool ? pool->threads : 1; }

/* ---- CPUs ---- */

#if defined(__linux__)

/* The start of a small file as a string; false when it cannot be read. */
static bool read_file(const char *path, char *text, size_t size) {
    const int f = open(path, O_RDONLY | O_CLOEXEC);
    if (f < 0)
        return false;
    const ssize_t n = read(f, text, size - 1);
    close(f);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* Reads a decimal number and moves behind it; -1 when there is none. */
static int64_t number(const char **s) {
    int64_t v = 0;
    while (**s == ' ' || **s == '\n')
        ++*s;
    if (**s < '0' || **s > '9')
        return -1;
    for (; **s >= '0' && **s <= '9'; ++*s)
        v = v < INT64_C(1) << 50 ? v * 10 + (**s - '0') : v;
    return v;
}

static int32_t cpus_of(int64_t quota, int64_t period) {
    if (quota <= 0 || period <= 0)
        return MAX_THREADS;
    const int64_t n = quota / period + (quota % period != 0);
    return n < MAX_THREADS ? (int32_t)n : MAX_THREADS;
}

/* path = dir + name, or false when it does not fit. */
static bool join_path(char *path, size_t size, const char *root, const char *dir, size_t dir_length, const char *name) {
    const size_t a = strlen(root), b = strlen(name);
    if (a + dir_length + b >= size)
        return false;
    memcpy(path, root, a);
    memcpy(path + a, dir, dir_length);
    memcpy(path + a + dir_length, name, b + 1);
    return true;
}

static int32_t quota_v2(const char *dir, size_t length) {
    char path[512], text[64];
    if (!join_path(path, sizeof path, "/sys/fs/cgroup", dir, length, "/cpu.max") || !read_file(path, text, sizeof text))
        return MAX_THREADS;
    const char *s = text;
    const int64_t quota = number(&s); /* "max" is none */
    return quota < 0 ? MAX_THREADS : cpus_of(quota, number(&s));
}

static int32_t quota_v1(const char *dir, size_t length) {
    char path[512], quota[64], period[64];
    if (!join_path(path, sizeof path, "/sys/fs/cgroup/cpu", dir, length, "/cpu.cfs_quota_us") ||
        !read_file(path, quota, sizeof quota))
        return MAX_THREADS;
    if (!join_path(path, sizeof path, "/sys/fs/cgroup/cpu", dir, length, "/cpu.cfs_period_us") ||
        !read_file(path, period, sizeof period))
        return MAX_THREADS;
    const char *q = quota, *t = period;
    return cpus_of(number(&q), number(&t)); /* -1 is no quota */
}

/* A quota of any parent binds too; inside a container the group's own path is often the root. */
static int32_t quota_along(const char *dir, size_t length, int32_t (*quota)(const char *, size_t)) {
    int32_t least = quota("", 0);
    while (length > 1) {
        const int32_t n = quota(dir, length);
        least = n < least ? n : least;
        while (length > 0 && dir[--length] != '/') {
        }
    }
    return least;
}

/* Lines are "0::/path" (version 2) and "4:cpu,cpuacct:/path" (version 1). */
static int32_t cgroup_cpus(void) {
    char text[4096];
    int32_t least = quota_v2("", 0), n = quota_v1("", 0);
    least = n < least ? n : least;
    if (!read_file("/proc/self/cgroup", text, sizeof text))
        return least;
    for (const char *line = text; *line;) {
        const size_t length = strcspn(line, "\n");
        const char *names = memchr(line, ':', length),
                   *dir = names ? memchr(names + 1, ':', length - (size_t)(names + 1 - line)) : NULL;
        if (dir) {
            const size_t dir_length = length - (size_t)(dir + 1 - line), names_length = (size_t)(dir - names);
            const bool cpu = names_length > 4 && (memcmp(names, ":cpu:", 5) == 0 || memcmp(names, ":cpu,", 5) == 0);
            n = names_length == 1 ? quota_along(dir + 1, dir_length, quota_v2)
                : cpu             ? quota_along(dir + 1, dir_length, quota_v1)
                                  : MAX_THREADS;
            least = n < least ? n : least;
        }
        line += length + (line[length] == '\n');
    }
    return least;
}

int32_t frugal_cpu_count(void) {
    cpu_set_t set;
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    int32_t n = online > 0 && online < MAX_THREADS ? (int32_t)online : online > 0 ? MAX_THREADS : 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set) < MAX_THREADS ? CPU_COUNT(&set) : MAX_THREADS;
    const int32_t quota = cgroup_cpus();
    n = quota < n ? quota : n;
    return n > 1 ? n : 1;
}

#else

int32_t frugal_cpu_count(void) {
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int32_t)n;
}

#endif
#endif
