// What arbiter/native.py calls: a worker's turn, and the rules on a page for tests. Nothing here throws.
#include <sys/mman.h>

#include "arbiter.h"
#include "executor.h"

using xpool_server::Costs;
using xpool_server::Executor;
using xpool_server::Page;
using xpool_server::Turn;

#define API extern "C" __attribute__((visibility("default")))

// Null if the page cannot be mapped. It stays mapped for as long as the process lives.
API Turn *xs_turn_new(int32_t fd, int32_t slot) {
  void *page = mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED || slot < 0 || static_cast<uint64_t>(slot) >= xpool_server::kSlots)
    return nullptr;
  return new Turn(*static_cast<Page *>(page), slot);
}

API void xs_turn_begin(Turn *turn, int32_t heeds_calls) { turn->begin(heeds_calls); }
// 0: the node has called, and no record may follow.
API int32_t xs_turn_check(Turn *turn, int32_t heeds_calls) { return turn->check(heeds_calls); }
API void xs_turn_end(Turn *turn) { turn->end(); }
API void xs_turn_measured(Turn *turn, uint64_t total_ns) { turn->measured(total_ns); }
API void xs_turn_note_work_by(Turn *turn, void (*note_work)(int32_t begins)) { turn->note_work_by(note_work); }
API void xs_set_turn(Executor *executor, Turn *turn) { executor->turn = turn; }

// Estimates; those of an executor's operations are made while it runs them.
API Costs *xs_costs_new() { return new Costs; }
API double xs_costs_submit(Costs *costs, uint64_t exact, uint64_t rough) { return costs->submit(exact, rough); }
API void xs_costs_end_span(Costs *costs) { costs->end_span(); }
API void xs_costs_measured(Costs *costs, uint64_t took_ns) { costs->measured(took_ns); }
API uint64_t xs_costs_pending(Costs *costs) { return costs->pending_ns(); }
API void xs_set_costs(Executor *executor, Costs *costs) { executor->costs = costs; }
API void xs_turn_estimate_by(Turn *turn, const Costs *costs) { turn->estimate_by(costs); }

API int32_t xs_page_next(Page *page, uint64_t now_ns) { return xpool_server::next_slot(*page, now_ns); }

API int32_t xs_page_must_yield(Page *page, int32_t holder, uint64_t held_ns, int32_t next, uint64_t now_ns) {
  return xpool_server::must_yield(*page, holder, held_ns, next, now_ns);
}

API void xs_page_charge(Page *page, int32_t slot, int64_t used_ns, uint64_t now_ns, int64_t alone_ns) {
  xpool_server::charge(*page, slot, used_ns, now_ns, alone_ns);
}

API int64_t xs_page_refill(Page *page, int32_t slot, uint64_t now_ns) {
  return xpool_server::refill(*page, page->slots[slot], now_ns);
}

API uint64_t xs_page_ready_at(Page *page, int32_t slot) {
  return xpool_server::ready_at_ns(*page, page->slots[slot]);
}
