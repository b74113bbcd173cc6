// Runs CUDA C kernels on a CPU: every thread of a block is a fiber, barriers and warp votes are
// meetings of fibers. Blocks run one after the other. A meeting that can no longer take place
// (threads left or wait elsewhere) is reported, so that misplaced barriers are found.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

using std::max;
using std::min;

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

namespace emulator {

struct Three {
    unsigned x, y, z;
};

struct Meeting {
    int arrived = 0;
    long generation = 0;
};

struct Fiber {
    ucontext_t context;  // where it begins
    jmp_buf place;       // where it goes on; swapcontext would call the system twice a turn
    unsigned thread = 0;
    bool begun = false, done = false;
};

const size_t STACK = 96 * 1024;
jmp_buf scheduler;
std::vector<Fiber> fibers;
std::vector<char> stacks;
std::vector<Meeting> warp_meetings;
std::vector<double> slots;
Meeting block_meeting;
Fiber *current = nullptr;
unsigned block = 0, blocks = 0, threads = 0;
long events = 0;
void (*body)() = nullptr;

__attribute__((noinline)) void wait_turn() {
    if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

__attribute__((noinline)) void give_turn(Fiber &fiber) {
    current = &fiber;
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    setcontext(&fiber.context);
}

__attribute__((noinline)) void meet(Meeting &meeting, int people) {
    const long generation = meeting.generation;
    events++;
    if (++meeting.arrived == people) {
        meeting.arrived = 0;
        meeting.generation++;
        return;
    }
    while (*(volatile long *)&meeting.generation == generation) wait_turn();
}

inline void meet_warp() { meet(warp_meetings[current->thread / 32], 32); }

template <class V>
V exchange(V v, unsigned partner) {  // partner: lane whose value is wanted
    const unsigned thread = current->thread;
    slots[thread] = (double)v;
    meet_warp();
    const V answer = (V)slots[thread / 32 * 32 + partner];
    meet_warp();
    return answer;
}

inline unsigned vote(bool yes) {
    const unsigned thread = current->thread;
    slots[thread] = yes;
    meet_warp();
    unsigned mask = 0;
    for (unsigned k = 0; k < 32; k++) mask |= (unsigned)(slots[thread / 32 * 32 + k] != 0) << k;
    meet_warp();
    return mask;
}

void start() {
    for (;;) {  // the same fibers serve all blocks
        body();
        current->done = true;
        events++;
        wait_turn();
    }
}

void make_fibers(unsigned count) {
    fibers.assign(count, Fiber());
    stacks.resize(count * STACK);
    for (unsigned k = 0; k < count; k++) {
        Fiber &fiber = fibers[k];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = stacks.data() + k * STACK;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.thread = k;
        makecontext(&fiber.context, start, 0);
    }
}

// 0, or 1 when threads wait for others that will never come.
int run_block() {
    for (Fiber &fiber : fibers) fiber.done = false;
    for (auto &meeting : warp_meetings) meeting = Meeting();
    block_meeting = Meeting();
    for (;;) {
        const long before = events;
        bool all_done = true;
        for (unsigned k = 0; k < threads; k++) {
            if (fibers[k].done) continue;
            all_done = false;
            give_turn(fibers[k]);
        }
        if (all_done) return 0;
        if (events == before) return 1;
    }
}

int run(unsigned grid, unsigned size, void (*work)()) {
    blocks = grid;
    threads = size;
    body = work;
    if (fibers.size() != size) make_fibers(size);
    warp_meetings.resize((size + 31) / 32);
    slots.resize(size);
    for (block = 0; block < grid; block++)
        if (run_block()) {
            fibers.clear();  // some are stuck
            return 1;
        }
    return 0;
}

}  // namespace emulator

#define threadIdx (emulator::Three{emulator::current->thread, 0, 0})
#define blockIdx (emulator::Three{emulator::block, 0, 0})
#define blockDim (emulator::Three{emulator::threads, 1, 1})
#define gridDim (emulator::Three{emulator::blocks, 1, 1})
#define __syncthreads() emulator::meet(emulator::block_meeting, (int)emulator::threads)
#define __syncwarp() emulator::meet_warp()
#define __ballot_sync(mask, yes) emulator::vote(yes)
#define __shfl_xor_sync(mask, v, k) emulator::exchange(v, (emulator::current->thread & 31u) ^ (k))
#define __popc __builtin_popcount

inline int atomicAdd(int *place, int v) {
    const int old = *place;
    *place += v;
    return old;
}
