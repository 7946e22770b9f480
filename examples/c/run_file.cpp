// Runs an exported file with our kernels through ONNX Runtime's plain C interface: no Python, no foreign
// header.
//
//   g++ -std=c++17 -O2 -I cpp/ort examples/c/run_file.cpp -o run_file -ldl
//   run_file LIBONNXRUNTIME LIBEQUIBIT_ORT FILE.onnx SIZE... < inputs > outputs
//
// LIBONNXRUNTIME is onnxruntime's shared library (in Python's wheel onnxruntime/capi/libonnxruntime.so.*),
// LIBEQUIBIT_ORT what `equibit.runtime.library_path()` gives. SIZE... is the shape of the input, batch first;
// its float32 values are read from standard input as they lie in memory. Each output is printed on a line.

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <vector>

#include "ort_api.h"

namespace ort = equibit::ort;

namespace {

[[noreturn]] void stop(const char* message) {
  std::fprintf(stderr, "run_file: %s\n", message);
  std::exit(1);
}

const ort::Api* load_runtime(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) stop(dlerror());
  const auto base = reinterpret_cast<const ort::ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  if (base == nullptr) stop("this library is not ONNX Runtime");
  const ort::Api* api = base()->get_api(ort::api_version);
  if (api == nullptr) stop("this ONNX Runtime is older than 1.20");
  return api;
}

// Calls a function of the runtime; one that fails ends the program with its message.
template <typename E, typename... Arguments>
void call(const ort::Api* api, Arguments... arguments) {
  ort::Status* status = ort::get<E>(api)(arguments...);
  if (status != nullptr) stop(ort::get<ort::GetErrorMessage>(api)(status));
}

ort::Session* open_session(const ort::Api* api, const char* operators, const char* file) {
  constexpr int warnings = 2;
  ort::Env* env = nullptr;
  ort::SessionOptions* options = nullptr;
  ort::Session* session = nullptr;
  void* library = nullptr;
  call<ort::CreateEnv>(api, warnings, "equibit", &env);
  call<ort::CreateSessionOptions>(api, &options);
  call<ort::RegisterCustomOpsLibrary>(api, options, operators, &library);
  call<ort::CreateSession>(api, static_cast<const ort::Env*>(env), file,
                           static_cast<const ort::SessionOptions*>(options), &session);
  ort::get<ort::ReleaseSessionOptions>(api)(options);
  return session;  // it and its environment live as long as the program
}

ort::Value* make_input(const ort::Api* api, const std::vector<std::int64_t>& shape,
                       std::vector<float>& values) {
  constexpr int arena = 1, default_memory = 0;
  ort::MemoryInfo* memory = nullptr;
  ort::Value* input = nullptr;
  call<ort::CreateCpuMemoryInfo>(api, arena, default_memory, &memory);
  call<ort::CreateTensorWithData>(api, static_cast<const ort::MemoryInfo*>(memory),
                                  static_cast<void*>(values.data()), values.size() * sizeof(float),
                                  shape.data(), shape.size(), static_cast<int>(ort::float32), &input);
  ort::get<ort::ReleaseMemoryInfo>(api)(memory);
  return input;
}

void print(const ort::Api* api, ort::Value* output) {
  ort::TensorInfo* info = nullptr;
  std::size_t count = 0;
  void* values = nullptr;
  call<ort::GetTensorInfo>(api, static_cast<const ort::Value*>(output), &info);
  call<ort::GetElementCount>(api, static_cast<const ort::TensorInfo*>(info), &count);
  call<ort::GetTensorData>(api, output, &values);
  ort::get<ort::ReleaseTensorInfo>(api)(info);
  for (std::size_t i = 0; i < count; ++i) std::printf("%.9g\n", static_cast<const float*>(values)[i]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) stop("usage: run_file LIBONNXRUNTIME LIBEQUIBIT_ORT FILE.onnx SIZE... < inputs > outputs");
  std::vector<std::int64_t> shape;
  for (int i = 4; i < argc; ++i) shape.push_back(std::atoll(argv[i]));
  const std::int64_t count =
      std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  if (count < 1) stop("every size must be at least 1");
  std::vector<float> values(static_cast<std::size_t>(count));
  if (std::fread(values.data(), sizeof(float), values.size(), stdin) != values.size()) {
    stop("standard input holds fewer values than the shape");
  }

  const ort::Api* api = load_runtime(argv[1]);
  ort::Session* session = open_session(api, argv[2], argv[3]);
  ort::Value* input = make_input(api, shape, values);
  ort::Value* output = nullptr;
  const char* const input_name = "input";  // as the exporter names them
  const char* const output_name = "output";
  const ort::Value* const inputs[] = {input};
  call<ort::Run>(api, session, static_cast<const void*>(nullptr), &input_name, inputs, std::size_t{1},
                 &output_name, std::size_t{1}, &output);
  print(api, output);
  ort::get<ort::ReleaseValue>(api)(output);
  ort::get<ort::ReleaseValue>(api)(input);
  return 0;
}
