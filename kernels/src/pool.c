/* pool.c - threads for fr_pool_run, the number of CPUs this process may use, and a clock; -DFRUGAL_NO_THREADS leaves one thread.
 *
 * A job is cut into pieces, and every thread has a range of them: from one job to the next a thread finds in its cache what it
 * has written, and reads whole runs of what another has.  A thread that is done with its own takes pieces from the ends of the
 * others' ranges, so one that the system has not scheduled delays nobody: the caller waits only for pieces that a worker has
 * taken.
 *
 * Workers that find nothing to take spin for a bounded time, longer while a run is under way than after it, and sleep then.
 * Waking a sleeper takes some microseconds of the caller and some tens until it is there, so the caller starts alone and wakes
 * the others only for work that is worth it: because the session has said so (fr_pool_expect), or because its own first pieces
 * took long. Threads beyond the CPUs of the caller stay asleep, as each would only take the CPU of another.  In a forked child
 * the workers do not exist: jobs run in the calling thread. */
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
void fr_pool_begin(frugal_pool *pool, int64_t operations) { (void)pool, (void)operations; }
void fr_pool_expect(frugal_pool *pool, int64_t operations) { (void)pool, (void)operations; }
void fr_pool_end(frugal_pool *pool) { (void)pool; }

#else
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_THREADS = 1024,
    SPINS_A_LOOK = 32,     /* pauses between looks at the clock */
    SPIN_AFTER_RUN = 50000 /* ns without a job until a worker sleeps: for a caller that comes back at once */
};
enum {
    SPIN_IN_RUN = 200000,     /* while a run is under way: longer than most steps that do not split */
    SPIN_FOR_WORKERS = 50000, /* ns of the caller for pieces that workers still compute; it sleeps then, and frees its CPU */
    WAKE_FROM = 15000,        /* ns of work left from which on sleepers are worth waking, */
    WAKE_AFTER = 40000,       /* or ns that the caller of small jobs has worked alone in this run */
    GIVE_WAY = 1500000,       /* ns that a worker runs until it lets others have its CPU */
    INTERRUPTION = 500000,    /* ns between two of its looks at the clock that mean that it did not run */
    LOOK_AT_CPUS = 50000000   /* ns between looks at the caller's affinity */
};
/* From so many operations on a step, or a run, takes longer than waking: some 20 us of int8 products, more of anything else. */
#define WORTH_WAKING INT64_C(4000000)

typedef struct worker {
    frugal_pool *pool;
    pthread_t thread;
    int32_t index;
    unsigned seen;      /* the last job it knows; its own */
    atomic_int id;      /* of the system, 0 until it has begun */
    int64_t since, now; /* when it got its CPU, as far as it can tell, and when it looked last; its own */
    atomic_int asleep;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
} worker;

/* Pieces [first, end) of the job that nobody has taken, as first + end << 16. */
typedef struct range {
    _Alignas(64) atomic_uint left;
} range;

struct frugal_pool {
    /* The job: written by the caller while no piece is left or under way, read by those who took a piece; in one cache line with
     * the number that workers look at, so that they have it with one transfer. */
    _Alignas(64) atomic_uint job; /* counts them */
    fr_task task;
    void *ctx;
    int64_t n, each, pieces;
    _Alignas(64) int32_t threads; /* the caller included */
    unsigned forks;               /* workers exist in this process only */
    atomic_int_fast64_t alone;    /* ns of this run's jobs so far in which workers slept */
    atomic_int_fast64_t expected; /* operations of the next job; 0: unknown */
    atomic_int busy, waiting;
    pthread_mutex_t mutex;
    pthread_cond_t idle;
    _Alignas(64) atomic_int_fast64_t done; /* pieces that workers have finished */
    _Alignas(64) atomic_int sleepers, runs, stop;
    atomic_int limit;        /* threads that have a CPU */
    atomic_int placing, cpu; /* 1 + the CPU of the caller when the workers were placed */
    atomic_int_fast64_t next_look;
#if defined(__linux__)
    cpu_set_t cpus; /* of the caller; for whoever holds placing */
#endif
    range *range; /* [threads], behind the workers */
    _Alignas(64) worker workers[];
};

static atomic_uint forks; /* of this process, counted in the child */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static void count_fork(void) { atomic_fetch_add(&forks, 1); }
static void watch_forks(void) { (void)pthread_atfork(NULL, NULL, count_fork); }

static bool is_foreign(const frugal_pool *p) { return p->forks != atomic_load_explicit(&forks, memory_order_relaxed); }

#if !defined(FR_POOL_JOLT)
#define FR_POOL_JOLT() ((void)0) /* tests delay a thread here */
#endif

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

/* ---- pieces ---- */

/* Takes the first piece of a thread's own range, the last of another's; -1: none is left.  That it may belong to a later job than
 * the one the thread knows of does no harm: the job is read afterwards, and stays until the piece is done. */
static int32_t take_from(range *r, bool own) {
    unsigned left = atomic_load_explicit(&r->left, memory_order_acquire);
    for (;;) {
        const unsigned first = left & 0xffff, end = left >> 16;
        if (first >= end)
            return -1;
        if (atomic_compare_exchange_weak_explicit(&r->left, &left, own ? left + 1 : left - 0x10000, memory_order_acq_rel,
                                                  memory_order_acquire))
            return (int32_t)(own ? first : end - 1);
    }
}

static int32_t take(frugal_pool *p, int32_t thread) {
    int32_t piece = take_from(&p->range[thread], true);
    for (int32_t k = 1; k < p->threads && piece < 0; k++)
        piece = take_from(&p->range[(thread + k) % p->threads], false);
    return piece;
}

static void run_piece(const frugal_pool *p, int32_t piece, int32_t thread) {
    const int64_t first = piece * p->each, end = first + p->each < p->n ? first + p->each : p->n;
    FR_POOL_JOLT();
    for (int64_t i = first; i < end; i++)
        p->task(p->ctx, i, thread);
}

/* ---- where threads run ---- */

#if defined(__linux__)

static void know_worker(worker *w) { atomic_store(&w->id, (int)syscall(SYS_gettid)); }

/* The workers may run where their caller may (who restricts a thread, or a process, means this), but for the caller's own CPU:
 * when all CPUs are in use, the system likes to put a thread that is woken beside the one that woke it, where it stands in the
 * queue until the caller has done all the work. */
static void move_workers(frugal_pool *p, int cpu) {
    cpu_set_t cpus = p->cpus;
    if (cpu < CPU_SETSIZE && CPU_ISSET((size_t)cpu, &cpus) && CPU_COUNT(&cpus) > 1)
        CPU_CLR((size_t)cpu, &cpus);
    bool all = true;
    for (int32_t i = 1; i < p->threads; i++) {
        const int id = atomic_load(&p->workers[i].id);
        all &= id > 0 && sched_setaffinity(id, sizeof cpus, &cpus) == 0;
    }
    atomic_store_explicit(&p->cpu, all ? cpu + 1 : 0, memory_order_relaxed);
}

static void look_at_cpus(frugal_pool *p, int64_t now) {
    cpu_set_t cpus;
    atomic_store_explicit(&p->next_look, now + LOOK_AT_CPUS, memory_order_relaxed);
    if (sched_getaffinity(0, sizeof cpus, &cpus) || CPU_COUNT(&cpus) == 0 || CPU_EQUAL(&cpus, &p->cpus))
        return;
    p->cpus = cpus;
    atomic_store(&p->limit, CPU_COUNT(&cpus) < p->threads ? CPU_COUNT(&cpus) : p->threads);
    atomic_store_explicit(&p->cpu, 0, memory_order_relaxed);
}

static void place_workers(frugal_pool *p) {
    const int cpu = sched_getcpu();
    const int64_t now = frugal_clock();
    const bool old = now >= atomic_load_explicit(&p->next_look, memory_order_relaxed);
    if (cpu < 0 || (!old && cpu + 1 == atomic_load_explicit(&p->cpu, memory_order_relaxed)) || atomic_exchange(&p->placing, 1))
        return;
    if (old)
        look_at_cpus(p, now);
    if (cpu + 1 != atomic_load_explicit(&p->cpu, memory_order_relaxed))
        move_workers(p, cpu);
    atomic_store(&p->placing, 0);
}

#else
static void know_worker(worker *w) { (void)w; }
static void place_workers(frugal_pool *p) { (void)p; }
#endif

/* ---- workers ---- */

/* Where it holds no piece a worker offers its CPU, more often than the system would take it away.  When another program wants the
 * CPU it runs a while earlier than it would have, but not in the middle of a piece for which the caller waits (one of two CPUs
 * kept busy: 400 jobs of 40 us took 1.96 times as long without this, 1.46 with it); otherwise the call returns at once. */
static bool should_give_way(worker *w) {
    const int64_t now = frugal_clock();
    if (now - w->now > INTERRUPTION)
        w->since = now;
    w->now = now;
    return now - w->since > GIVE_WAY;
}

static void give_way(worker *w) {
    (void)sched_yield();
    w->since = w->now = frugal_clock();
}

static void hand_in(frugal_pool *p, int64_t count) {
    if (count == 0)
        return;
    FR_POOL_JOLT();
    atomic_fetch_add(&p->done, count); /* from here on the job may be gone */
    if (atomic_load(&p->waiting)) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_broadcast(&p->idle);
        pthread_mutex_unlock(&p->mutex);
    }
}

static void work_along(worker *w) {
    frugal_pool *p = w->pool;
    int64_t count = 0;
    for (;;) {
        if (should_give_way(w)) {
            hand_in(p, count);
            count = 0;
            give_way(w);
        }
        const int32_t piece = take(p, w->index);
        if (piece < 0)
            break;
        run_piece(p, piece, w->index);
        count++;
    }
    hand_in(p, count);
}

static bool nothing_new(const worker *w) { return atomic_load_explicit(&w->pool->job, memory_order_relaxed) == w->seen; }

/* True when there is something to do, false when the time is over. */
static bool spin_for_job(worker *w) {
    frugal_pool *p = w->pool;
    const int64_t start = frugal_clock();
    int64_t spent = 0;
    while (spent < (atomic_load_explicit(&p->runs, memory_order_relaxed) ? SPIN_IN_RUN : SPIN_AFTER_RUN)) {
        for (int i = 0; i < SPINS_A_LOOK; i++) {
            if (!nothing_new(w))
                return true;
            pause_cpu();
        }
        if (should_give_way(w))
            give_way(w);
        spent = w->now - start;
    }
    return false;
}

static void sleep_for_job(worker *w) {
    frugal_pool *p = w->pool;
    FR_POOL_JOLT();
    pthread_mutex_lock(&w->mutex);
    atomic_store(&w->asleep, 1);
    atomic_fetch_add(&p->sleepers, 1);
    /* Whoever publishes a job looks at the sleepers afterwards, this one looks at the job afterwards: one of the two sees it. */
    if (atomic_load(&p->job) == w->seen) {
        while (atomic_load(&w->asleep))
            pthread_cond_wait(&w->wake, &w->mutex);
    } else if (atomic_exchange(&w->asleep, 0)) {
        atomic_fetch_sub(&p->sleepers, 1);
    }
    pthread_mutex_unlock(&w->mutex);
}

static void *work(void *arg) {
    worker *w = arg;
    know_worker(w);
    while (!atomic_load(&w->pool->stop)) {
        if (!spin_for_job(w))
            sleep_for_job(w);
        w->seen = atomic_load(&w->pool->job);
        work_along(w);
    }
    return NULL;
}

static void wake_worker(worker *w) {
    if (!atomic_exchange(&w->asleep, 0))
        return;
    atomic_fetch_sub(&w->pool->sleepers, 1);
    pthread_mutex_lock(&w->mutex); /* it is not between looking at `asleep` and waiting */
    pthread_mutex_unlock(&w->mutex);
    pthread_cond_signal(&w->wake);
}

/* ---- jobs ---- */

static void wake_workers(frugal_pool *p, int64_t pieces) {
    place_workers(p);
    atomic_store_explicit(&p->alone, 0, memory_order_relaxed);
    const int32_t limit = atomic_load_explicit(&p->limit, memory_order_relaxed);
    for (int32_t i = 1; i < p->threads && i < limit && i <= pieces; i++)
        wake_worker(&p->workers[i]);
}

static bool someone_sleeps(frugal_pool *p) { return atomic_load(&p->sleepers) > p->threads - atomic_load(&p->limit); }

/* The caller's part; the number of its pieces.  While workers sleep it looks at the clock after each. */
static int64_t take_part(frugal_pool *p, bool asleep) {
    const int64_t start = asleep ? frugal_clock() : 0;
    int64_t count = 0;
    for (int32_t piece; (piece = take(p, 0)) >= 0;) {
        run_piece(p, piece, 0);
        count++;
        if (!asleep)
            continue;
        const int64_t left = p->pieces - count, spent = frugal_clock() - start;
        if (left > 0 &&
            (spent / count * left > WAKE_FROM || atomic_load_explicit(&p->alone, memory_order_relaxed) + spent > WAKE_AFTER)) {
            wake_workers(p, left);
            asleep = false;
        } else if (left <= 0) {
            atomic_fetch_add_explicit(&p->alone, spent, memory_order_relaxed);
        }
    }
    return count;
}

static void wait_for_workers(frugal_pool *p, int64_t count) {
    if (atomic_load(&p->done) == count)
        return;
    const int64_t end = frugal_clock() + SPIN_FOR_WORKERS;
    do {
        for (int i = 0; i < SPINS_A_LOOK; i++) {
            if (atomic_load(&p->done) == count)
                return;
            pause_cpu();
        }
    } while (frugal_clock() < end);
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->waiting, 1);
    while (atomic_load(&p->done) != count)
        pthread_cond_wait(&p->idle, &p->mutex);
    atomic_store(&p->waiting, 0);
    pthread_mutex_unlock(&p->mutex);
}

static int64_t items_a_piece(int64_t n, int32_t threads) {
#if defined(FR_POOL_EACH)
    return FR_POOL_EACH(n, threads); /* tests choose */
#else
    const int64_t each = n / (8 * (int64_t)threads);
    return each > 1 ? each : 1;
#endif
}

static void share_out(frugal_pool *p) {
    const int64_t ranges = atomic_load_explicit(&p->limit, memory_order_relaxed);
    for (int64_t t = 0; t < ranges; t++) {
        const unsigned first = (unsigned)(p->pieces * t / ranges), end = (unsigned)(p->pieces * (t + 1) / ranges);
        atomic_store_explicit(&p->range[t].left, first | end << 16, memory_order_release);
    }
}

void fr_pool_run(frugal_pool *p, int64_t n, fr_task task, void *ctx) {
    /* busy: two sessions may share a pool; the second one to come works alone. */
    if (!p || n <= 1 || p->threads == 1 || is_foreign(p) || atomic_exchange_explicit(&p->busy, 1, memory_order_acquire)) {
        run_alone(n, task, ctx);
        return;
    }
    p->task = task;
    p->ctx = ctx;
    p->n = n;
    p->each = items_a_piece(n, p->threads);
    p->pieces = (n + p->each - 1) / p->each;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    share_out(p);
    atomic_fetch_add(&p->job, 1);
    bool asleep = someone_sleeps(p);
    if (asleep && atomic_load_explicit(&p->expected, memory_order_relaxed) >= WORTH_WAKING) {
        wake_workers(p, p->pieces - 1);
        asleep = false;
    }
    const int64_t own = take_part(p, asleep);
    wait_for_workers(p, p->pieces - own);
    atomic_store_explicit(&p->busy, 0, memory_order_release);
}

/* ---- runs ---- */

void fr_pool_begin(frugal_pool *p, int64_t operations) {
    if (!p || p->threads == 1 || is_foreign(p))
        return;
    place_workers(p);
    atomic_fetch_add(&p->runs, 1);
    if (operations >= WORTH_WAKING && someone_sleeps(p))
        wake_workers(p, p->threads);
}

void fr_pool_expect(frugal_pool *p, int64_t operations) {
    if (p)
        atomic_store_explicit(&p->expected, operations, memory_order_relaxed);
}

void fr_pool_end(frugal_pool *p) {
    if (!p || p->threads == 1 || is_foreign(p))
        return;
    atomic_store_explicit(&p->expected, 0, memory_order_relaxed);
    atomic_fetch_sub(&p->runs, 1);
}

/* ---- start and stop ---- */

static int32_t clamp_threads(int32_t threads) { return threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads; }

/* The pool, its workers, and a range a thread. */
static size_t range_at(int32_t threads) { return (sizeof(frugal_pool) + (size_t)threads * sizeof(worker) + 63) / 64 * 64; }

size_t frugal_pool_bytes(int32_t threads) {
    threads = clamp_threads(threads);
    return range_at(threads) + (size_t)threads * sizeof(range);
}

/* Workers take no signals: those belong to the program's own threads. */
static bool start_worker(worker *w, const pthread_attr_t *attr) {
    sigset_t all, old;
    if (pthread_mutex_init(&w->mutex, NULL))
        return false;
    if (pthread_cond_init(&w->wake, NULL)) {
        pthread_mutex_destroy(&w->mutex);
        return false;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int failed = pthread_create(&w->thread, attr, work, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->mutex);
    }
    return failed == 0;
}

static void start_workers(frugal_pool *p, int32_t threads) {
    pthread_attr_t attr;
    if (pthread_attr_init(&attr))
        return;
    (void)pthread_attr_setstacksize(&attr, 1 << 20); /* a hint: the default also does */
    for (int32_t i = 1; i < threads; i++) {
        p->workers[i].pool = p;
        p->workers[i].index = i;
        if (!start_worker(&p->workers[i], &attr))
            break; /* fewer threads, the same results */
        p->threads = i + 1;
    }
    pthread_attr_destroy(&attr);
}

frugal_status frugal_pool_start(frugal_pool **pool, void *mem, size_t mem_bytes, int32_t threads) {
    if (!pool || !mem || (uintptr_t)mem % 64 || mem_bytes < frugal_pool_bytes(threads))
        return FRUGAL_BAD_ARG;
    frugal_pool *p = mem;
    memset(p, 0, frugal_pool_bytes(threads));
    (void)pthread_once(&fork_once, watch_forks);
    p->threads = 1;
    p->range = (range *)(void *)((uint8_t *)mem + range_at(clamp_threads(threads)));
    p->forks = atomic_load(&forks);
    if (pthread_mutex_init(&p->mutex, NULL) || pthread_cond_init(&p->idle, NULL))
        return FRUGAL_UNSUPPORTED;
    start_workers(p, clamp_threads(threads));
    p->limit = p->threads;
    *pool = p;
    return FRUGAL_OK;
}

void frugal_pool_stop(frugal_pool *p) {
    if (!p || is_foreign(p))
        return;
    atomic_store(&p->stop, 1);
    atomic_fetch_add(&p->job, 1);
    for (int32_t i = 1; i < p->threads; i++)
        wake_worker(&p->workers[i]);
    for (int32_t i = 1; i < p->threads; i++) {
        pthread_join(p->workers[i].thread, NULL);
        pthread_cond_destroy(&p->workers[i].wake);
        pthread_mutex_destroy(&p->workers[i].mutex);
    }
    pthread_cond_destroy(&p->idle);
    pthread_mutex_destroy(&p->mutex);
    p->threads = 1;
}

int32_t frugal_pool_threads(const frugal_pool *pool) { return pool ? pool->threads : 1; }

/* ---- CPUs ---- */

#if defined(__linux__)

static const char *cgroup_root = "/sys/fs/cgroup", *cgroup_self = "/proc/self/cgroup";

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
    if (!join_path(path, sizeof path, cgroup_root, dir, length, "/cpu.max") || !read_file(path, text, sizeof text))
        return MAX_THREADS;
    const char *s = text;
    const int64_t quota = number(&s); /* "max" is none */
    return quota < 0 ? MAX_THREADS : cpus_of(quota, number(&s));
}

static int32_t quota_v1(const char *dir, size_t length) {
    char path[512], root[256], quota[64], period[64];
    if (!join_path(root, sizeof root, cgroup_root, "", 0, "/cpu"))
        return MAX_THREADS;
    if (!join_path(path, sizeof path, root, dir, length, "/cpu.cfs_quota_us") || !read_file(path, quota, sizeof quota))
        return MAX_THREADS;
    if (!join_path(path, sizeof path, root, dir, length, "/cpu.cfs_period_us") || !read_file(path, period, sizeof period))
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

/* Whether "cpu" is one of these names, which commas separate. */
static bool names_cpu(const char *names, size_t length) {
    for (size_t i = 0, start = 0; i <= length; i++) {
        if (i < length && names[i] != ',')
            continue;
        if (i - start == 3 && memcmp(names + start, "cpu", 3) == 0)
            return true;
        start = i + 1;
    }
    return false;
}

/* Lines are "0::/path" (version 2) and "4:cpu,cpuacct:/path" (version 1). */
static int32_t cgroup_cpus(void) {
    char text[4096];
    int32_t least = quota_v2("", 0), n = quota_v1("", 0);
    least = n < least ? n : least;
    if (!read_file(cgroup_self, text, sizeof text))
        return least;
    for (const char *line = text; *line;) {
        const size_t length = strcspn(line, "\n");
        const char *names = memchr(line, ':', length),
                   *dir = names ? memchr(names + 1, ':', length - (size_t)(names + 1 - line)) : NULL;
        if (dir) {
            const size_t dir_length = length - (size_t)(dir + 1 - line), names_length = (size_t)(dir - names - 1);
            n = names_length == 0                    ? quota_along(dir + 1, dir_length, quota_v2)
                : names_cpu(names + 1, names_length) ? quota_along(dir + 1, dir_length, quota_v1)
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
