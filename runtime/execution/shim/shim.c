/* The runtime library of a block's library where TVM's own is not wanted: threads, workspace, the last error.
 *
 * Freestanding on purpose: no header is included, so that one file compiles for every target, Android too, without
 * its C library at hand. Of the C library it asks for pthread_create, posix_memalign, free, syscall, sched_yield,
 * clock_gettime and __register_atfork.
 *
 * It is exported as nas_*, so that it and TVM's own runtime may share a process. With NAS_TVM_NAMES also under the
 * names that TVM's generated code knows: then libraries linked for TVM's runtime run with it, where TVM is not. */

typedef __UINT32_TYPE__ u32;
typedef __INT32_TYPE__ i32;
typedef __UINT64_TYPE__ u64;
typedef __INT64_TYPE__ i64;
typedef __SIZE_TYPE__ size;

extern int pthread_create(void *thread, const void *attributes, void *(*start)(void *), void *argument);
extern int posix_memalign(void **out, size alignment, size bytes);
extern void free(void *block);
extern long syscall(long number, ...);
extern int sched_yield(void);
extern int clock_gettime(int clock, void *time);
extern int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *dso);

#define EXPORT __attribute__((visibility("default")))
#define ALSO(name) __attribute__((visibility("default"), alias(#name)))

#if defined(__x86_64__)
#define SYS_FUTEX 202
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define SYS_FUTEX 98
#define PAUSE() __asm__ volatile("isb" ::: "memory")
#elif defined(__arm__)
#define SYS_FUTEX 240
#define PAUSE() __asm__ volatile("yield" ::: "memory")
#endif

enum { MAX_THREADS = 64, LINE_BYTES = 64, WAIT_NS = 200000, PAUSES = 16, YIELDS_PER_LOOK = 8 };
enum { FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129, CLOCK_MONOTONIC = 1 };

/* ---- waiting ---- */

static i64 now_ns(void) {
  long time[4] = {0}; /* a struct timespec: two longs, or on a 32-bit machine with 64-bit time two pairs of them */
  clock_gettime(CLOCK_MONOTONIC, time);
  return (i64)time[0] * 1000000000 + time[1];
}

/* Wait until *word differs from `old`; 0 when it has not after WAIT_NS. Yields soon, since where other work leaves a
 * pool one processor for two threads, the one waited for runs only then. */
static int wait(u32 *word, u32 old) {
  for (int i = 0; i < PAUSES; ++i) {
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != old) return 1;
    PAUSE();
  }
  for (i64 end = now_ns() + WAIT_NS;;) {
    for (int i = 0; i < YIELDS_PER_LOOK; ++i) {
      if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != old) return 1;
      sched_yield();
    }
    if (now_ns() > end) return 0;
  }
}

static void lock(u32 *word) {
  while (__atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE)) sched_yield();
}

static void unlock(u32 *word) { __atomic_store_n(word, 0, __ATOMIC_RELEASE); }

/* ---- threads: one pool for the process ---- */

typedef struct {
  void *sync;
  i32 tasks;
} Group; /* TVMParallelGroupEnv */

typedef int (*Lambda)(int task, Group *group, void *data); /* FTVMParallelLambda */

typedef struct {
  u32 turn;   /* one more for every job; what the worker sleeps on */
  u32 asleep; /* whether it must be woken */
  char pad[LINE_BYTES - 2 * sizeof(u32)];
} Worker;

static struct {
  u32 busy; /* held by the caller whose job runs */
  u32 wanted, started;
  Lambda lambda;
  void *data;
  Group group;
  u32 takers; /* threads on this job, the caller among them: thread t takes tasks t, t + takers, ... */
  u32 failed;
  char pad[LINE_BYTES];
  u32 pending; /* workers that have not finished yet */
} pool = {.wanted = 1, .started = 1};

static Worker workers[MAX_THREADS] __attribute__((aligned(LINE_BYTES)));

static void take(u32 thread) {
  for (i32 task = (i32)thread; task < pool.group.tasks; task += (i32)pool.takers)
    if (pool.lambda(task, &pool.group, pool.data)) __atomic_store_n(&pool.failed, 1, __ATOMIC_RELAXED);
}

static void *work(void *argument) {
  u32 thread = (u32)(size)argument;
  Worker *self = &workers[thread];
  for (u32 turn = 0;; ++turn) {
    while (!wait(&self->turn, turn)) {
      __atomic_store_n(&self->asleep, 1, __ATOMIC_SEQ_CST);
      while (__atomic_load_n(&self->turn, __ATOMIC_SEQ_CST) == turn)
        syscall(SYS_FUTEX, &self->turn, FUTEX_WAIT_PRIVATE, turn, (void *)0);
      __atomic_store_n(&self->asleep, 0, __ATOMIC_SEQ_CST);
    }
    take(thread);
    __atomic_sub_fetch(&pool.pending, 1, __ATOMIC_RELEASE);
  }
  return 0;
}

/* A child of fork has the caller's thread only. */
static void forget_workers(void) {
  pool.started = 1;
  pool.busy = 0;
}

static void start_workers(u32 threads) {
  static u32 watched;
  if (!watched) {
    watched = 1;
    __register_atfork(0, 0, forget_workers, 0);
  }
  for (; pool.started < threads; ++pool.started) {
    size thread[2]; /* a pthread_t is a long */
    workers[pool.started].turn = workers[pool.started].asleep = 0;
    if (pthread_create(thread, 0, work, (void *)(size)pool.started)) return;
  }
}

static int run_alone(Lambda lambda, void *data, i32 tasks) {
  Group group = {0, tasks};
  int failed = 0;
  for (i32 task = 0; task < tasks; ++task) failed |= lambda(task, &group, data) != 0;
  return failed ? -1 : 0;
}

/* Run lambda(0..tasks-1), `tasks` = 0 meaning one for every thread; -1 when one of them failed. A call from within a
 * job, or while another caller's job runs, is done by its own thread alone. */
EXPORT int nas_parallel_launch(Lambda lambda, void *data, int tasks) {
  u32 wanted = __atomic_load_n(&pool.wanted, __ATOMIC_RELAXED);
  if (tasks <= 0) tasks = (int)wanted;
  u32 takers = (u32)tasks < wanted ? (u32)tasks : wanted;
  if (takers < 2 || __atomic_exchange_n(&pool.busy, 1, __ATOMIC_ACQUIRE)) return run_alone(lambda, data, tasks);
  if (pool.started < takers) start_workers(takers);
  if (takers > pool.started) takers = pool.started;
  pool.lambda = lambda;
  pool.data = data;
  pool.group.tasks = tasks;
  pool.takers = takers;
  pool.failed = 0;
  __atomic_store_n(&pool.pending, takers - 1, __ATOMIC_RELAXED);
  for (u32 i = 1; i < takers; ++i) {
    __atomic_add_fetch(&workers[i].turn, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&workers[i].asleep, __ATOMIC_SEQ_CST))
      syscall(SYS_FUTEX, &workers[i].turn, FUTEX_WAKE_PRIVATE, 1);
  }
  take(0);
  for (u32 left; (left = __atomic_load_n(&pool.pending, __ATOMIC_ACQUIRE)) != 0;) wait(&pool.pending, left);
  int failed = pool.failed;
  unlock(&pool.busy);
  return failed ? -1 : 0;
}

/* How many threads a job may use, the caller's among them; returns what was set. Workers start with the first job. */
EXPORT int nas_set_threads(int threads) {
  threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
  __atomic_store_n(&pool.wanted, (u32)threads, __ATOMIC_RELAXED);
  return threads;
}

/* ---- workspace: blocks given back are kept for the next call ---- */

enum { KEPT = 8, ALIGNMENT = 64 };

typedef struct {
  size bytes;
} Header; /* ALIGNMENT bytes before what is given out */

static u32 workspace_lock;
static Header *kept[KEPT];

EXPORT void *nas_alloc_workspace(int device_type, int device_id, u64 bytes, int code_hint, int bits_hint) {
  (void)device_type, (void)device_id, (void)code_hint, (void)bits_hint;
  if (bytes > (u64)(size)-1 - 2 * ALIGNMENT) return 0;
  size need = (size)bytes;
  int best = -1;
  lock(&workspace_lock);
  for (int i = 0; i < KEPT; ++i)
    if (kept[i] && kept[i]->bytes >= need && (best < 0 || kept[i]->bytes < kept[best]->bytes)) best = i;
  Header *found = best < 0 ? 0 : kept[best];
  if (found) kept[best] = 0;
  unlock(&workspace_lock);
  void *block = found;
  if (!found) {
    if (posix_memalign(&block, ALIGNMENT, need + ALIGNMENT)) return 0;
    ((Header *)block)->bytes = need;
  }
  return (char *)block + ALIGNMENT;
}

/* Keep a block in place of the smallest one kept. */
EXPORT int nas_free_workspace(int device_type, int device_id, void *pointer) {
  (void)device_type, (void)device_id;
  if (!pointer) return 0;
  Header *block = (Header *)((char *)pointer - ALIGNMENT);
  int smallest = 0;
  lock(&workspace_lock);
  for (int i = 1; i < KEPT && kept[smallest]; ++i)
    if (!kept[i] || kept[i]->bytes < kept[smallest]->bytes) smallest = i;
  Header *out = block;
  if (!kept[smallest] || kept[smallest]->bytes < block->bytes) {
    out = kept[smallest];
    kept[smallest] = block;
  }
  unlock(&workspace_lock);
  free(out);
  return 0;
}

/* ---- the last error ---- */

enum { MESSAGE_BYTES = 1024 };
static u32 message_lock;
static char message[MESSAGE_BYTES];

static size append(size at, const char *text) {
  while (text && *text && at + 1 < MESSAGE_BYTES) message[at++] = *text++;
  return at;
}

EXPORT void nas_raise_parts(const char *kind, const char **parts, i32 count) {
  lock(&message_lock);
  size at = append(append(0, kind), ": ");
  for (i32 i = 0; i < count; ++i) at = append(at, parts[i]);
  message[at] = 0;
  unlock(&message_lock);
}

EXPORT void nas_raise(const char *kind, const char *text) { nas_raise_parts(kind, &text, 1); }

/* Copy the message of the call that failed last, of whatever thread, into `out`. */
EXPORT void nas_last_error(char *out, size bytes) {
  if (!bytes) return;
  lock(&message_lock);
  size at = 0;
  for (; at + 1 < bytes && message[at]; ++at) out[at] = message[at];
  out[at] = 0;
  unlock(&message_lock);
}

#ifdef NAS_TVM_NAMES
int TVMBackendParallelLaunch(Lambda lambda, void *data, int tasks) ALSO(nas_parallel_launch);
void *TVMBackendAllocWorkspace(int device_type, int device_id, u64 bytes, int code_hint, int bits_hint)
    ALSO(nas_alloc_workspace);
int TVMBackendFreeWorkspace(int device_type, int device_id, void *pointer) ALSO(nas_free_workspace);
void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *text) ALSO(nas_raise);
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, i32 count) ALSO(nas_raise_parts);
#endif
