// Graphs on the server, and torch.cuda.CUDAGraph over them: begin, end, replay.
#include "capture.h"
#include "kernels.h"
#include "recording.h"

#include <torch/library.h>

#include <array>

namespace xpool {

namespace {

struct Ledger {  // of one device's graphs, by the server's rule
  std::atomic<uint64_t> count{0}, nbytes{0}, next{1};
};

Ledger &ledger_of(int device) {
  static auto *ledgers = new std::array<Ledger, kMaxDevices>;
  return (*ledgers)[device];
}

void put_numbers(Bytes &to, const auto &numbers) {
  to.uvarint(numbers.size());
  for (const auto number : numbers)
    to.uvarint(number);
}

}  // namespace

SentGraph::SentGraph(int index, const Capture &capture, const std::vector<uint32_t> &parameters,
                     const std::vector<uint32_t> &results)
    : device(index), generators(capture.generators), nbytes_(capture.records.size()) {
  Ledger &ledger = ledger_of(device);
  TORCH_CHECK(capture.record_count <= kMaxGraphRecords && nbytes_ <= kMaxGraphBytes, "xpool: a graph has at most ",
              kMaxGraphRecords, " operations and ", kMaxGraphBytes, " bytes");
  TORCH_CHECK(ledger.count < kMaxGraphs && ledger.nbytes + nbytes_ <= kMaxGraphsBytes, "xpool: a job has at most ",
              kMaxGraphs, " graphs of ", kMaxGraphsBytes, " bytes together; drop some that are not needed");
  ledger.count++;
  ledger.nbytes += nbytes_;
  id = ledger.next++;
  scratch = capture.charged_most - std::min(capture.charged_now, capture.charged_most);
  Bytes record;
  record.uint8(kDefineGraph);
  record.uvarint(id);
  record.uvarint(capture.slots.size());
  put_numbers(record, parameters);
  put_numbers(record, results);
  record.text(capture.records);
  Log::of(device).append(record);
}

SentGraph::~SentGraph() {
  for (StorageName *name : kept)
    drop_storage(name);
  if (is_forked())
    return;
  Bytes record;
  record.uint8(kFreeGraph);
  record.uvarint(id);
  Log::of(device).append(record);
  ledger_of(device).count--;
  ledger_of(device).nbytes -= nbytes_;
}

void SentGraph::run(const std::vector<uint64_t> &parameters, const std::vector<uint64_t> &results) {
  leave_room(device);
  charge_for_a_moment(device, scratch);
  Bytes record;
  record.uint8(kRunGraph);
  record.uvarint(id);
  put_numbers(record, parameters);
  put_numbers(record, results);
  const uint64_t number = Log::of(device).append(record);
  if (callbacks.trace)
    callbacks.trace(device, number);
}

// ---------------------------------------------------------------- CUDA graphs

namespace {

struct Result {  // a storage that each replay makes anew, under the name it has
  uint64_t id;
  std::shared_ptr<std::atomic<bool>> is_gone;
};

struct CudaGraph {
  std::unique_ptr<SentGraph> sent;
  std::vector<uint64_t> parameters;
  std::vector<Result> results;
  std::vector<HostCopy> host_copies;
};

int64_t as_number(CudaGraph *graph) { return reinterpret_cast<int64_t>(graph); }
CudaGraph &from_number(int64_t number) { return *reinterpret_cast<CudaGraph *>(number); }

void capture_begin(int64_t device) {
  check_usable(device);
  const int64_t stream = current_stream(device);
  TORCH_CHECK(stream != 0, "CUDA graphs must be captured on a non-default stream. (However, after capture, it's ok to "
                           "replay them on the default stream.)");
  TORCH_CHECK(!capturing(device), "CUDA error: the stream is capturing a graph already");
  begin_capture(device, stream);
}

// The server has what survives a capture from now on, as undefined bytes until the first replay.
void announce_survivor(int device, StorageName *name) {
  Bytes record;
  record.uint8(kAllocate);
  record.uvarint(name->id);
  record.uvarint(name->nbytes);
  Log::of(device).append(record);
  name->is_known = true;
  name->born = nullptr;
}

int64_t capture_end(int64_t device) {
  const auto capture = take_capture(device, current_stream(device));
  auto graph = std::make_unique<CudaGraph>();
  std::vector<uint32_t> parameters, results;
  std::vector<std::pair<size_t, size_t>> spots;
  std::lock_guard<std::mutex> lock(captures_mutex());
  for (uint32_t i = 0; i < capture->slots.size(); i++) {
    Slot &slot = capture->slots[i];
    if (!slot.name || (!slot.is_parameter && !slot.is_made))
      continue;
    if (slot.allocate_nbytes) {
      // Memory that outlives the capture is the program's to write: it keeps its bytes from replay to replay.
      spots.push_back({slot.allocate_at, slot.allocate_nbytes});
      slot.is_parameter = true;
      slot.name->keepers++;
    }
    (slot.is_parameter ? parameters : results).push_back(i);
  }
  for (StorageName *name : capture->born)
    if (const auto found = capture->numbers.find(name); found != capture->numbers.end() && capture->slots[found->second].is_made)
      announce_survivor(device, name);
    else
      name->born = nullptr;
  capture->born.clear();
  TORCH_CHECK(!capture->is_invalid, "CUDA error: operation failed due to a previous error during capture");
  capture->cut(spots);
  graph->sent = std::make_unique<SentGraph>(device, *capture, parameters, results);
  graph->host_copies = capture->host_copies;
  for (const uint32_t number : parameters) {
    graph->parameters.push_back(capture->slots[number].name->id);
    graph->sent->kept.push_back(std::exchange(capture->slots[number].name, nullptr));
  }
  for (const uint32_t number : results) {
    StorageName *name = capture->slots[number].name;
    if (!name->is_gone)
      name->is_gone = std::make_shared<std::atomic<bool>>(false);
    graph->results.push_back({name->id, name->is_gone});
  }
  return as_number(graph.release());
}

void graph_replay(int64_t number) {
  CudaGraph &graph = from_number(number);
  refuse_capture(graph.sent->device);
  std::vector<uint64_t> results;
  for (const Result &result : graph.results)
    results.push_back(*result.is_gone ? 0 : result.id);
  for (HostCopy &copy : graph.host_copies)
    if (copy.is_upload)
      copy_(copy.remote, copy.host, true);
  graph.sent->run(graph.parameters, results);
  for (HostCopy &copy : graph.host_copies)
    if (!copy.is_upload)
      copy_(copy.host, copy.remote, true);
}

void graph_free(int64_t number) { delete &from_number(number); }

bool is_capturing(int64_t device) { return is_stream_capturing(device, current_stream(device)); }
void refuse(int64_t device) { refuse_capture(device); }
void follow(int64_t device, int64_t stream, int64_t leader) { follow_capture(device, stream, leader); }

}  // namespace

void register_graphs() {
  static auto &library = *new torch::Library(torch::Library::FRAGMENT, "xpool", std::nullopt, __FILE__, __LINE__);
  library.def("capture_begin(int device) -> ()", &capture_begin);
  library.def("capture_end(int device) -> int", &capture_end);
  library.def("graph_replay(int graph) -> ()", &graph_replay);
  library.def("graph_free(int graph) -> ()", &graph_free);
  library.def("is_capturing(int device) -> bool", &is_capturing);
  library.def("refuse_capture(int device) -> ()", &refuse);
  library.def("follow(int device, int stream, int leader) -> ()", &follow);
}

}  // namespace xpool
