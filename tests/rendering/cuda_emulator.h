// Runs CUDA C kernels on a CPU: every thread of a block is a fiber, barriers and warp votes are
// meetings of fibers. Blocks run one after the other. A meeting that can no longer take place
// (threads left or wait elsewhere) is reported, so that misplaced barriers are found.
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
    ucontext_t context;
    unsigned thread = 0;
    bool done = false;
};

const size_t STACK = 96 * 1024;
ucontext_t scheduler;
std::vector<Fiber> fibers;
std::vector<char> stacks;
std::vector<Meeting> warp_meetings;
std::vector<double> slots;
Meeting block_meeting;
Fiber *current = nullptr;
unsigned block = 0, blocks = 0, threads = 0;
long events = 0;
void (*body)() = nullptr;

__attribute__((noinline)) void wait_turn() { swapcontext(&current->context, &scheduler); }

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
    body();
    current->done = true;
    events++;
    swapcontext(&current->context, &scheduler);
}

// 0, or 1 when threads wait for others that will never come.
int run_block() {
    for (unsigned k = 0; k < threads; k++) {
        Fiber &fiber = fibers[k];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = stacks.data() + k * STACK;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = &scheduler;
        fiber.thread = k;
        fiber.done = false;
        makecontext(&fiber.context, start, 0);
    }
    for (auto &meeting : warp_meetings) meeting = Meeting();
    block_meeting = Meeting();
    for (;;) {
        const long before = events;
        bool all_done = true;
        for (unsigned k = 0; k < threads; k++) {
            if (fibers[k].done) continue;
            all_done = false;
            current = &fibers[k];
            swapcontext(&scheduler, &current->context);
        }
        if (all_done) return 0;
        if (events == before) return 1;
    }
}

int run(unsigned grid, unsigned size, void (*work)()) {
    blocks = grid;
    threads = size;
    body = work;
    fibers.resize(size);
    stacks.resize(size * STACK);
    warp_meetings.resize((size + 31) / 32);
    slots.resize(size);
    for (block = 0; block < grid; block++)
        if (run_block()) return 1;
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
