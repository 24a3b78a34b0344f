/* test_pool.c - threads: every item of a job is run once, whatever is late; workers that have nothing to do sleep; forks, lost
 * threads, changed affinity; the CPUs that a process may use.  Built with a copy of pool.c of its own, so that it sees inside,
 * can cut jobs at random and can delay threads where that hurts most. */
#define _GNU_SOURCE
#include <assert.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static void jolt(void);
static int64_t cut(int64_t n, int32_t threads);
#define FR_POOL_JOLT() jolt()
#define FR_POOL_EACH(n, threads) cut(n, threads)
#include "../src/pool.c"
#include "count.h"
#include "plan_builder.h"

/* ---- what this copy of the pool does differently ---- */

static atomic_int jolting;
static atomic_uint dice = 1;

static unsigned roll(unsigned n) {
    const unsigned x = atomic_fetch_add(&dice, 1) * 2654435761u;
    return (x ^ x >> 15) * 2246822519u % n;
}

static void sleep_us(int64_t us) { nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL); }

static void jolt(void) {
    if (!atomic_load_explicit(&jolting, memory_order_relaxed))
        return;
    const unsigned r = roll(64);
    if (r < 8)
        sched_yield();
    else if (r == 8)
        sleep_us(roll(200));
}

static int64_t cut(int64_t n, int32_t threads) {
    const int64_t least = n / 8192 + 1;
    return atomic_load(&jolting) ? least + roll((unsigned)(n < 64 ? n : 64)) : n / (8 * threads) > 1 ? n / (8 * threads) : 1;
}

static frugal_pool *start(int32_t threads, void **memory) {
    frugal_pool *p = NULL;
    *memory = aligned_alloc(64, (frugal_pool_bytes(threads) + 63) / 64 * 64);
    assert(*memory);
    CHECK(frugal_pool_start(&p, *memory, frugal_pool_bytes(threads), threads) == FRUGAL_OK);
    return p;
}

/* Threads beyond the CPUs of this machine take part too. */
static void unlimit(frugal_pool *p) {
    fr_pool_begin(p, 0);
    fr_pool_end(p);
    atomic_store(&p->limit, p->threads);
    atomic_store(&p->next_look, INT64_MAX);
}

/* ---- jobs ---- */

enum { ITEMS = 5000, THREADS = 4 };
typedef struct job {
    atomic_int count[ITEMS];
    atomic_int by[THREADS];
    int64_t us; /* of sleep in items of workers */
} job;

static void count_task(void *ctx, int64_t i, int32_t thread) {
    job *j = ctx;
    atomic_fetch_add_explicit(&j->count[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&j->by[thread], 1, memory_order_relaxed);
    if (thread > 0 && j->us > 0)
        sleep_us(j->us);
}

static void busy_task(void *ctx, int64_t i, int32_t thread) {
    const int64_t end = frugal_clock() + *(int64_t *)ctx;
    (void)i, (void)thread;
    while (frugal_clock() < end)
        pause_cpu();
}

/* The caller is busy a while, so that workers get there; they take much longer. */
static void late_task(void *ctx, int64_t i, int32_t thread) {
    int64_t ns = 50000;
    count_task(ctx, i, thread);
    if (thread == 0)
        busy_task(&ns, i, thread);
}

static int all_once(job *j, int64_t n, int times) {
    int ok = 1;
    for (int64_t i = 0; i < ITEMS; i++)
        ok = ok && j->count[i] == (i < n ? times : 0);
    memset(j, 0, sizeof *j);
    return ok;
}

static void test_every_item_once(void) {
    static job j;
    for (int32_t threads = 1; threads <= THREADS; threads++) {
        void *memory;
        frugal_pool *p = start(threads, &memory);
        CHECK(frugal_pool_threads(p) == threads);
        unlimit(p);
        atomic_store(&jolting, 1);
        int ok = 1;
        for (int r = 0; r < 600; r++) {
            const int64_t n = r < 100 ? r : (int64_t)roll(ITEMS);
            if (r % 7 == 0)
                fr_pool_begin(p, roll(2) ? 1 << 30 : 0);
            fr_pool_expect(p, roll(2) ? 1 << 30 : 0);
            if (roll(20) == 0)
                sleep_us(roll(400)); /* workers are about to sleep, or do */
            fr_pool_run(p, n, count_task, &j);
            if (r % 7 == 0)
                fr_pool_end(p);
            ok = ok && all_once(&j, n, 1);
        }
        CHECK(ok);
        CHECK(atomic_load(&p->busy) == 0);
        atomic_store(&jolting, 0);
        frugal_pool_stop(p);
        free(memory);
    }
}

/* The caller has finished long before, and sleeps until the last worker hands in. */
static void test_waits_for_late_workers(void) {
    static job j;
    void *memory;
    frugal_pool *p = start(3, &memory);
    unlimit(p);
    int ok = 1, helped = 0;
    for (int r = 0; r < 50; r++) {
        j.us = 300;
        fr_pool_expect(p, 1 << 30);
        fr_pool_run(p, 48, late_task, &j);
        helped += j.by[0] < 48;
        ok = ok && all_once(&j, 48, 1);
    }
    CHECK(ok);
    CHECK(helped > 0);
    frugal_pool_stop(p);
    free(memory);
}

static void test_start_and_stop(void) {
    static job j;
    int ok = 1;
    for (int r = 0; r < 100; r++) {
        void *memory;
        frugal_pool *p = start(1 + r % THREADS, &memory);
        if (r % 3)
            sleep_us(roll(300));
        if (r % 2) {
            fr_pool_run(p, 40, count_task, &j);
            ok = ok && all_once(&j, 40, 1);
        }
        frugal_pool_stop(p);
        free(memory);
    }
    CHECK(ok);
    frugal_pool_stop(NULL);
    frugal_pool *p;
    void *memory = aligned_alloc(64, 65536);
    CHECK(frugal_pool_start(&p, memory, frugal_pool_bytes(4) - 1, 4) == FRUGAL_BAD_ARG);
    CHECK(frugal_pool_start(&p, (char *)memory + 8, 60000, 4) == FRUGAL_BAD_ARG);
    CHECK(frugal_pool_start(NULL, memory, 65536, 4) == FRUGAL_BAD_ARG);
    free(memory);
    CHECK(frugal_pool_threads(NULL) == 1);
}

typedef struct caller {
    frugal_pool *pool;
    job j;
    int ok;
} caller;

static void *call(void *arg) {
    caller *c = arg;
    c->ok = 1;
    for (int r = 0; r < 400; r++) {
        const int64_t n = roll(200);
        fr_pool_begin(c->pool, roll(2) ? 1 << 30 : 0);
        fr_pool_run(c->pool, n, count_task, &c->j);
        fr_pool_end(c->pool);
        c->ok = c->ok && all_once(&c->j, n, 1);
    }
    return NULL;
}

static void test_shared_by_two_threads(void) {
    static caller a, b;
    void *memory;
    pthread_t thread;
    a.pool = b.pool = start(2, &memory);
    atomic_store(&jolting, 1);
    assert(pthread_create(&thread, NULL, call, &a) == 0);
    call(&b);
    pthread_join(thread, NULL);
    atomic_store(&jolting, 0);
    CHECK(a.ok && b.ok);
    CHECK(atomic_load(&a.pool->runs) == 0);
    frugal_pool_stop(a.pool);
    free(memory);
}

/* ---- sleeping and waking ---- */

static int64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* 5 ms after a run nobody uses the CPU.  Asking takes some microseconds itself. */
static void test_idle(void) {
    int64_t ns = 20000;
    void *memory;
    frugal_pool *p = start(3, &memory);
    for (int r = 0; r < 3; r++) {
        fr_pool_begin(p, 1 << 30);
        fr_pool_run(p, 64, busy_task, &ns);
        fr_pool_end(p);
        int64_t used = INT64_MAX;
        for (int tries = 0; tries < 5 && used > 1000000;
             tries++) { /* a worker may stand in the system's queue instead of spinning */
            sleep_us(5000);
            const int64_t before = cpu_ns();
            sleep_us(60000);
            used = cpu_ns() - before;
        }
        CHECK(used < 1000000);
        CHECK(atomic_load(&p->sleepers) == p->threads - 1);
    }
    frugal_pool_stop(p);
    free(memory);
}

static void fall_asleep(frugal_pool *p) {
    for (int i = 0; i < 1000 && atomic_load(&p->sleepers) < p->threads - 1; i++)
        sleep_us(1000);
    CHECK(atomic_load(&p->sleepers) == p->threads - 1);
}

static void test_waking(void) {
    static job j;
    int64_t ns = 1000, long_ns = 20000;
    void *memory;
    frugal_pool *p = start(2, &memory);
    unlimit(p);
    int left_asleep = 0;
    for (int r = 0; r < 20 || (left_asleep == 0 && r < 1000); r++) { /* one that nothing interrupts takes less than waking does */
        fall_asleep(p);
        p->alone = 0;
        fr_pool_run(p, 40, count_task, &j);
        left_asleep += atomic_load(&p->sleepers) == 1;
        CHECK(all_once(&j, 40, 1));
    }
    CHECK(left_asleep > 0);
    fall_asleep(p);
    p->alone = 0;
    fr_pool_run(p, 40, busy_task, &long_ns); /* the caller's first piece says that it is worth it */
    CHECK(atomic_load(&p->sleepers) == 0 || p->alone == 0);
    fall_asleep(p);
    fr_pool_expect(p, 1 << 30);
    CHECK(atomic_load(&p->sleepers) == 1);
    p->alone = 1;
    fr_pool_run(p, 2, busy_task, &ns);
    CHECK(p->alone == 0); /* woken before the first piece */
    fall_asleep(p);
    p->alone = 1;
    fr_pool_begin(p, 1 << 30);
    CHECK(p->alone == 0);
    fr_pool_end(p);
    fall_asleep(p);
    fr_pool_begin(p, 0);
    CHECK(atomic_load(&p->sleepers) == 1);
    for (int r = 0; r < 100 && p->alone <= WAKE_AFTER; r++) /* many small jobs are a large one */
        fr_pool_run(p, 4, busy_task, &ns);
    fr_pool_run(p, 4, busy_task, &ns);
    CHECK(p->alone < WAKE_AFTER);
    fr_pool_end(p);
    frugal_pool_stop(p);
    free(memory);
}

/* ---- processes ---- */

static int ended_well(pid_t child) {
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static pid_t child_that_runs(frugal_pool *p) {
    const pid_t child = fork();
    if (child == 0) {
        static job j;
        memset(&j, 0, sizeof j);
        fr_pool_begin(p, 1 << 30);
        fr_pool_run(p, 1000, count_task, &j);
        fr_pool_end(p);
        const int alone = j.by[0] == 1000;
        frugal_pool_stop(p); /* must not wait for threads that are not here */
        _exit(alone && all_once(&j, 1000, 1) ? 0 : 1);
    }
    return child;
}

static void test_fork(void) {
    static caller other;
    static job j;
    void *memory;
    pthread_t thread;
    frugal_pool *p = other.pool = start(3, &memory);
    CHECK(ended_well(child_that_runs(p)));
    assert(pthread_create(&thread, NULL, call, &other) == 0);
    int ok = 1;
    for (int i = 0; i < 10; i++)
        ok = ok && ended_well(child_that_runs(p)); /* while jobs are under way */
    pthread_join(thread, NULL);
    CHECK(ok && other.ok);
    fr_pool_run(p, 1000, count_task, &j);
    CHECK(all_once(&j, 1000, 1));
    frugal_pool_stop(p);
    free(memory);
}

/* A user may not have more processes than this: the pool gets by with the threads it could start. */
static void test_no_more_threads(void) {
    const pid_t child = fork();
    if (child == 0) {
        static job j;
        failed = 0;
        const struct rlimit none = {0, 0};
        pthread_t thread;
        void *memory;
        if ((geteuid() == 0 && setuid(65534)) || setrlimit(RLIMIT_NPROC, &none) || pthread_create(&thread, NULL, call, NULL) == 0)
            _exit(2); /* the limit does not hold here, as under an emulator */
        frugal_pool *p = start(4, &memory);
        fr_pool_run(p, 1000, count_task, &j);
        const int right = !failed && frugal_pool_threads(p) == 1 && all_once(&j, 1000, 1);
        frugal_pool_stop(p);
        _exit(right ? 0 : 1);
    }
    int status = 1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
        printf("skipped: threads cannot be forbidden here\n");
    else
        CHECK(status == 0);
}

#if defined(__linux__)
static int has_cpus(const worker *w, const cpu_set_t *want) {
    cpu_set_t have;
    return sched_getaffinity(atomic_load(&w->id), sizeof have, &have) == 0 && CPU_EQUAL(&have, want);
}

/* Workers go where their caller may, but not to its own CPU; on one CPU they sleep. */
static void test_affinity(void) {
    static job j;
    cpu_set_t all, one, others;
    void *memory;
    if (sched_getaffinity(0, sizeof all, &all) || CPU_COUNT(&all) < 2) {
        printf("skipped: changing affinity (one CPU)\n");
        return;
    }
    size_t first = 0;
    while (!CPU_ISSET(first, &all))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    others = all;
    CPU_CLR(first, &others);
    frugal_pool *p = start(2, &memory);
    fall_asleep(p); /* it has begun, so it has an id */
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    atomic_store(&p->next_look, 0);
    fr_pool_begin(p, 1 << 30);
    CHECK(atomic_load(&p->limit) == 1 && has_cpus(&p->workers[1], &one));
    j.us = 1;
    for (int r = 0; r < 100; r++)
        fr_pool_run(p, 100, count_task, &j);
    CHECK(j.by[1] == 0 && all_once(&j, 100, 100));
    fr_pool_end(p);
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
    CHECK(atomic_load(&p->next_look) > frugal_clock()); /* looks rarely */
    atomic_store(&p->next_look, 0);
    fr_pool_begin(p, 1 << 30);
    CHECK(atomic_load(&p->limit) == 2);
    const int cpu = sched_getcpu();
    cpu_set_t want = all;
    CPU_CLR((size_t)(atomic_load(&p->cpu) - 1), &want);
    CHECK(has_cpus(&p->workers[1], &want) && (cpu + 1 == atomic_load(&p->cpu) || sched_getcpu() != cpu));
    fr_pool_end(p);
    frugal_pool_stop(p);
    free(memory);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0 && frugal_cpu_count() == 1);
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0 && frugal_cpu_count() >= 1);
}

/* ---- quotas ---- */

static char folder[] = "cgroup-XXXXXX"; /* where the test runs */

static void put(const char *path, const char *text) {
    char name[256];
    snprintf(name, sizeof name, "%s%s", folder, path);
    for (char *s = name + strlen(folder) + 1; (s = strchr(s, '/')) != NULL; s++) {
        *s = 0;
        mkdir(name, 0700);
        *s = '/';
    }
    FILE *f = fopen(name, "w");
    assert(f);
    fputs(text, f);
    fclose(f);
}

/* What a process in these groups may use. */
static int32_t cpus_in(const char *groups) {
    put("/self", groups);
    return cgroup_cpus();
}

static void test_quota(void) {
    static char root[64], self[64];
    assert(mkdtemp(folder));
    snprintf(root, sizeof root, "%s", folder);
    snprintf(self, sizeof self, "%s/self", folder);
    cgroup_root = root, cgroup_self = self;
    CHECK(cgroup_cpus() == MAX_THREADS); /* nothing is there */
    CHECK(cpus_in("") == MAX_THREADS && cpus_in("0::/\n") == MAX_THREADS && cpus_in("0::/gone/too\n") == MAX_THREADS);
    CHECK(cpus_in("nonsense\n::\n0:\n:::::\n\n0::\n") == MAX_THREADS);
    put("/max/cpu.max", "max 100000\n");
    put("/half/cpu.max", "50000 100000\n");
    put("/more/cpu.max", "150000 100000\n");
    put("/three/cpu.max", "300000 100000\n");
    put("/three/in/cpu.max", "max 100000\n");
    put("/three/in/deep/cpu.max", "800000 100000\n");
    put("/three/two/cpu.max", "40000 20000\n");
    put("/odd/cpu.max", "what\n");
    put("/zero/cpu.max", "0 0\n");
    put("/alone/cpu.max", "100000\n");
    put("/huge/cpu.max", "99999999999999999999999 1\n");
    CHECK(cpus_in("0::/max\n") == MAX_THREADS);
    CHECK(cpus_in("0::/half\n") == 1);
    CHECK(cpus_in("0::/more\n") == 2);
    CHECK(cpus_in("0::/three\n") == 3 && cpus_in("0::/three/in\n") == 3 && cpus_in("0::/three/in/deep\n") == 3);
    CHECK(cpus_in("0::/three/two\n") == 2 && cpus_in("0::/three/two/without/file\n") == 2);
    CHECK(cpus_in("0::/odd\n") == MAX_THREADS && cpus_in("0::/zero\n") == MAX_THREADS);
    CHECK(cpus_in("0::/alone\n") == MAX_THREADS && cpus_in("0::/huge\n") == MAX_THREADS);
    put("/cpu/a/cpu.cfs_quota_us", "150000\n");
    put("/cpu/a/cpu.cfs_period_us", "50000\n");
    put("/cpu/a/b/cpu.cfs_quota_us", "-1\n");
    put("/cpu/a/b/cpu.cfs_period_us", "100000\n");
    put("/cpu/broken/cpu.cfs_quota_us", "100000\n");
    CHECK(cpus_in("4:cpu,cpuacct:/a\n") == 3 && cpus_in("4:cpu:/a/b\n") == 3);
    CHECK(cpus_in("4:cpuacct:/a\n") == MAX_THREADS && cpus_in("4:cpuset:/a\n") == MAX_THREADS);
    CHECK(cpus_in("4:cpu:/broken\n") == MAX_THREADS);
    CHECK(cpus_in("7:memory:/x\n4:cpuacct,cpu:/a\n0::/three/two\n") == 2);
    CHECK(cpus_in("7:memory:/x\n4:cpuacct,cpu:/a\n0::/max\n") == 3);
    put("/cpu.max", "100000 100000\n"); /* in a container the group's own files are at the root */
    CHECK(cpus_in("0::/\n") == 1 && cpus_in("0::/somewhere/outside\n") == 1);
    CHECK(frugal_cpu_count() == 1);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(system(command) == 0);
}
#endif

/* ---- the same bytes whatever the threads do ---- */

static void noise(float *x, int64_t n, unsigned seed) {
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)(seed >> 8) * 1e-7f - 0.8f;
    }
}

/* softmax(x w) w', twice: sums of products, of exponentials and of rows, each with an order that cutting must not change. */
static uint8_t *some_plan(size_t *size) {
    static float w[150 * 130];
    pb *b = pb_new();
    noise(w, 150 * 130, 3);
    const int64_t rows = 67, k = 150, n = 130;
    int32_t x = pb_input(b, 1, 2, (int64_t[]){rows, k});
    const int32_t tw = pb_const(b, 1, 0, 2, (int64_t[]){k, n}, w, sizeof w),
                  tv = pb_const(b, 1, 0, 2, (int64_t[]){n, k}, w, sizeof w);
    const int32_t out = pb_output(b, 1, 2, (int64_t[]){rows, k});
    for (int turn = 0; turn < 2; turn++) {
        const int32_t a = pb_temp(b, 1, 0, 2, (int64_t[]){rows, n}), p = pb_temp(b, 1, 0, 2, (int64_t[]){rows, n});
        const int32_t y = turn == 1 ? out : pb_temp(b, 1, 0, 2, (int64_t[]){rows, k});
        pb_step(b, FRUGAL_OP_MATMUL, PB_LIST(x, tw), PB_LIST(a), PB_LIST(0, pb_float(1)));
        pb_step(b, FRUGAL_OP_SOFTMAX, PB_LIST(a), PB_LIST(p), PB_LIST(1, 0));
        pb_step(b, FRUGAL_OP_MATMUL, PB_LIST(p, tv), PB_LIST(y), PB_LIST(0, pb_float(4)));
        x = y;
    }
    uint8_t *file = pb_finish(b, size);
    free(b);
    return file;
}

static void test_same_bytes(void) {
    static float x[67 * 150], want[67 * 150], got[67 * 150];
    size_t size;
    frugal_plan plan;
    frugal_error err;
    uint8_t *file = some_plan(&size);
    noise(x, 67 * 150, 9);
    assert(frugal_plan_open(&plan, file, size, &err) == FRUGAL_OK);
    for (int32_t threads = 1; threads <= THREADS; threads++) {
        void *pool_memory, *memory = aligned_alloc(64, (frugal_session_bytes(&plan) + 63) / 64 * 64);
        frugal_pool *pool = start(threads, &pool_memory);
        frugal_session *s;
        assert(frugal_session_init(&s, memory, frugal_session_bytes(&plan), &plan, frugal_isa_find("auto"), pool, 1 << 30,
                                   &err) == FRUGAL_OK);
        assert(frugal_session_resolve(s, (int64_t[]){67, 150}, &err) == FRUGAL_OK);
        const size_t bytes = frugal_session_arena_bytes(s);
        void *arena = aligned_alloc(64, (bytes + 63) / 64 * 64);
        unlimit(pool);
        atomic_store(&jolting, threads > 1);
        int same = 1;
        for (int r = 0; r < (threads > 1 ? 60 : 1); r++) {
            float *y = threads > 1 ? got : want;
            memset(y, 0xff, sizeof got);
            same = same && frugal_session_run(s, arena, bytes, (const void *[]){x}, (void *[]){y}, &err) == FRUGAL_OK &&
                   memcmp(y, want, sizeof got) == 0;
        }
        CHECK(same);
        atomic_store(&jolting, 0);
        frugal_pool_stop(pool);
        free(arena);
        free(memory);
        free(pool_memory);
    }
    free(file);
}

int main(void) {
    test_every_item_once();
    test_waits_for_late_workers();
    test_start_and_stop();
    test_shared_by_two_threads();
    test_idle();
    test_waking();
    test_fork();
    test_no_more_threads();
#if defined(__linux__)
    test_affinity();
    test_quota();
#endif
    test_same_bytes();
    return check_report();
}
