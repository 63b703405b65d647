// Compiled regions: a functional graph of operations, captured once for each geometry of its inputs.
//
// Python runs the region's operations between `region_begin` and `region_finish`; from then on `region_run` finds the
// captured graph by its inputs' geometry and sends one record.
#include "addresses.h"
#include "capture.h"
#include "recording.h"

#include <torch/library.h>

#include <list>
#include <optional>

namespace xpool {

namespace {

constexpr size_t kMaxRegionGraphs = 64;  // of one region: the longest unused one goes

struct Output {
  int input = -1;      // it is that input itself
  int parameter = -1;  // or lies in that parameter's storage
  int result = -1;     // or in that result's
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  bool is_conj = false, is_neg = false;
  int64_t offset = 0;
  std::vector<int64_t> sizes, strides;
};

struct RegionGraph {
  std::unique_ptr<SentGraph> sent;
  std::vector<int> inputs;  // per parameter: the input whose storage it is, or -1 for one that the graph keeps
  std::vector<uint64_t> kept_ids;
  std::vector<uint64_t> result_nbytes;
  std::vector<Output> outputs;
  std::vector<int> bumped;  // inputs that the region writes
};

struct Region {
  std::mutex mutex;
  std::list<std::pair<std::string, std::shared_ptr<RegionGraph>>> recent;  // the last used one first
  std::unordered_map<std::string, decltype(recent)::iterator> graphs;

  std::shared_ptr<RegionGraph> find(const std::string &key) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = graphs.find(key);
    if (found == graphs.end())
      return nullptr;
    recent.splice(recent.begin(), recent, found->second);
    return found->second->second;
  }

  void add(std::string key, std::shared_ptr<RegionGraph> graph) {
    std::shared_ptr<RegionGraph> last;  // its end is a record: not under our mutex
    std::lock_guard<std::mutex> lock(mutex);
    if (graphs.count(key))
      return;
    recent.emplace_front(key, std::move(graph));
    graphs[std::move(key)] = recent.begin();
    if (recent.size() > kMaxRegionGraphs) {
      last = std::move(recent.back().second);
      graphs.erase(recent.back().first);
      recent.pop_back();
    }
  }
};

Region &from_number(int64_t number) { return *reinterpret_cast<Region *>(number); }

StorageName *name_of(const at::Tensor &tensor) {
  return storage_name(tensor.storage());
}

bool is_plain(const at::Tensor &tensor, int device) {
  return is_remote(tensor) && tensor.layout() == c10::kStrided && tensor.device().index() == device && name_of(tensor);
}

uint8_t flags_of(const at::Tensor &tensor) { return (tensor.is_conj() ? 1 : 0) | (tensor.is_neg() ? 2 : 0); }

// What decides which graph fits: geometry of the inputs, which of them share a storage, and the numbers.
std::optional<std::string> key_of(int device, at::TensorList inputs, c10::IntArrayRef numbers) {
  Bytes key;
  std::unordered_map<const StorageName *, size_t> seen;
  for (size_t i = 0; i < inputs.size(); i++) {
    if (!is_plain(inputs[i], device))
      return std::nullopt;
    key.uvarint(seen.emplace(name_of(inputs[i]), i).first->second);
    put_geometry(key, inputs[i].scalar_type(), flags_of(inputs[i]), inputs[i].storage_offset(), inputs[i].sizes(),
                 inputs[i].strides());
  }
  for (const int64_t number : numbers)
    key.svarint(number);
  return std::string(key.str());
}

int64_t version_of(const at::Tensor &tensor) {
  return tensor.is_inference() ? 0 : tensor.unsafeGetTensorImpl()->version_counter().current_version();
}

thread_local std::string key_at_begin;
thread_local std::vector<int64_t> versions_at_begin;

int64_t region_new() { return reinterpret_cast<int64_t>(new Region); }
void region_free(int64_t region) { delete &from_number(region); }

// False if these inputs can't be captured: not all on the device, or a capture is under way.
bool region_begin(int64_t device, at::TensorList inputs, c10::IntArrayRef numbers) {
  check_usable(device);
  const auto key = key_of(device, inputs, numbers);
  if (!key || region_capture() || capturing(device))
    return false;
  key_at_begin = *key;
  versions_at_begin.clear();
  for (const auto &input : inputs)
    versions_at_begin.push_back(version_of(input));
  set_region_capture(std::make_unique<Capture>(device, Capture::Kind::kRegion));
  return true;
}

void region_abort() { take_region_capture(); }

Output describe(const at::Tensor &output, at::TensorList inputs, const Capture &capture,
                const std::unordered_map<uint32_t, int> &parameters, std::unordered_map<uint32_t, int> &results) {
  Output made;
  for (size_t i = 0; i < inputs.size() && made.input < 0; i++)
    if (output.is_same(inputs[i]))
      made.input = static_cast<int>(i);
  TORCH_CHECK(is_plain(output, capture.device), "xpool: a region's result is not on its device");
  const auto found = capture.numbers.find(name_of(output));
  TORCH_CHECK(made.input >= 0 || found != capture.numbers.end(), "xpool: no operation made a region's result");
  if (made.input >= 0)
    return made;
  if (const auto parameter = parameters.find(found->second); parameter != parameters.end()) {
    made.parameter = parameter->second;
  } else {
    TORCH_CHECK(capture.slots[found->second].is_made, "xpool: no operation made a region's result");
    made.result = results.emplace(found->second, static_cast<int>(results.size())).first->second;
  }
  made.dtype = output.scalar_type();
  made.is_conj = output.is_conj();
  made.is_neg = output.is_neg();
  made.offset = output.storage_offset();
  made.sizes = output.sizes().vec();
  made.strides = output.strides().vec();
  return made;
}

void region_finish(int64_t region, at::TensorList inputs, c10::IntArrayRef numbers, at::TensorList outputs) {
  const auto capture = take_region_capture();
  TORCH_CHECK(capture && !capture->is_invalid, "xpool: the region can't be captured");
  TORCH_CHECK(key_of(capture->device, inputs, numbers) == key_at_begin, "xpool: the region reshapes its inputs");
  // An input that comes out again, in a storage that no operation has named, is a parameter like any other.
  for (const auto &output : outputs)
    if (is_plain(output, capture->device) && !name_of(output)->born)
      capture->number(name_of(output));
  auto graph = std::make_shared<RegionGraph>();
  std::lock_guard<std::mutex> lock(captures_mutex());
  std::vector<uint32_t> parameters, results;
  std::unordered_map<uint32_t, int> parameter_places, result_places;
  for (uint32_t i = 0; i < capture->slots.size(); i++)
    if (capture->slots[i].is_parameter) {
      parameter_places[i] = static_cast<int>(parameters.size());
      parameters.push_back(i);
    }
  for (const uint32_t number : parameters) {
    int input = -1;
    for (size_t k = 0; k < inputs.size() && input < 0; k++)
      if (name_of(inputs[k]) == capture->slots[number].name)
        input = static_cast<int>(k);
    graph->inputs.push_back(input);
    graph->kept_ids.push_back(capture->slots[number].name->id);
  }
  for (const auto &output : outputs) {
    graph->outputs.push_back(describe(output, inputs, *capture, parameter_places, result_places));
    const int parameter = graph->outputs.back().parameter;
    TORCH_CHECK(parameter < 0 || graph->inputs[parameter] >= 0, "xpool: a region's result is one of its constants");
  }
  results.resize(result_places.size());
  for (const auto &[number, place] : result_places)
    results[place] = number;
  for (const uint32_t number : results)
    graph->result_nbytes.push_back(capture->slots[number].name->nbytes);
  for (size_t i = 0; i < inputs.size(); i++)
    if (version_of(inputs[i]) != versions_at_begin[i])
      graph->bumped.push_back(static_cast<int>(i));
  graph->sent = std::make_unique<SentGraph>(capture->device, *capture, parameters, results);
  for (size_t i = 0; i < parameters.size(); i++)
    if (graph->inputs[i] < 0)
      graph->sent->kept.push_back(std::exchange(capture->slots[parameters[i]].name, nullptr));
  from_number(region).add(key_at_begin, std::move(graph));
}

at::Tensor output_over(const Output &output, const c10::Storage &storage) {
  at::Tensor tensor = tensor_over(storage, output.dtype, output.sizes, output.strides, output.offset);
  if (output.is_conj)
    tensor._set_conj(true);
  if (output.is_neg)
    tensor._set_neg(true);
  return tensor;
}

// Whether the region has been captured for such inputs, and what it then gives.
std::tuple<bool, std::vector<at::Tensor>> region_run(int64_t region, int64_t device, at::TensorList inputs,
                                                     c10::IntArrayRef numbers) {
  std::vector<at::Tensor> outputs;
  const auto key = key_of(device, inputs, numbers);
  const auto graph = key ? from_number(region).find(*key) : nullptr;
  if (!graph || capturing(device))
    return {false, outputs};
  check_usable(device);
  std::vector<uint64_t> parameters, results;
  std::vector<c10::Storage> storages;
  for (size_t i = 0; i < graph->inputs.size(); i++)
    parameters.push_back(graph->inputs[i] < 0 ? graph->kept_ids[i] : name_of(inputs[graph->inputs[i]])->id);
  for (const uint64_t nbytes : graph->result_nbytes) {
    storages.emplace_back(c10::Storage::use_byte_size_t(), nbytes, result_allocator(device)->allocate(nbytes),
                          result_allocator(device), true);
    results.push_back(storage_id(storages.back()));
  }
  graph->sent->run(parameters, results);
  for (const auto &storage : storages)
    mark_known(storage);
  for (const int input : graph->bumped)
    if (!inputs[input].is_inference())
      inputs[input].unsafeGetTensorImpl()->bump_version();
  for (const Output &output : graph->outputs) {
    if (output.input >= 0)
      outputs.push_back(inputs[output.input]);
    else if (output.result >= 0)
      outputs.push_back(output_over(output, storages[output.result]));
    else
      outputs.push_back(output_over(output, inputs[graph->inputs[output.parameter]].storage()));
  }
  return {true, outputs};
}

}  // namespace

void register_regions() {
  static auto &library = *new torch::Library(torch::Library::FRAGMENT, "xpool", std::nullopt, __FILE__, __LINE__);
  library.def("region_new() -> int", &region_new);
  library.def("region_free(int region) -> ()", &region_free);
  library.def("region_begin(int device, Tensor[] inputs, int[] numbers) -> bool", &region_begin);
  library.def("region_abort() -> ()", &region_abort);
  library.def("region_finish(int region, Tensor[] inputs, int[] numbers, Tensor[] outputs) -> ()", &region_finish);
  library.def("region_run(int region, int device, Tensor[] inputs, int[] numbers) -> (bool, Tensor[])", &region_run);
}

}  // namespace xpool
