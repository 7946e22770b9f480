// The part of ONNX Runtime's C interface that we use, declared by ourselves: its wheels ship no header.
//
// The interface is a table of function pointers that only ever grows at its end, so a slot number means the
// same function in every version from the one that introduced it. Checked against API version 29; all slots
// below exist since version 20 (ONNX Runtime 1.20).
#pragma once

#include <cstddef>
#include <cstdint>

namespace equibit::ort {

// Objects of ONNX Runtime; all but the tables are opaque.
struct Env;
struct Status;
struct SessionOptions;
struct Session;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct MemoryInfo;
struct TensorInfo;
struct Value;

struct Api;  // the table

struct ApiBase {
  const Api* (*get_api)(std::uint32_t version);  // null where the runtime is older than `version`
  const char* (*version_string)();
};

constexpr std::uint32_t api_version = 20;

// Kinds of errors of a status, and types of elements.
enum Code : int { fail = 1, invalid_argument = 2 };
enum ElementType : int { undefined = 0, float32 = 1, uint8 = 2, uint64 = 13 };

// Whether an operator's input may be left out.
enum Characteristic : int { required = 0, optional = 1 };

// One function of the table.
template <std::size_t slot_number, typename FunctionType>
struct Entry {
  static constexpr std::size_t slot = slot_number;
  using Function = FunctionType;
};

// A function that fails returns a status, which its caller releases; null means success.
template <std::size_t slot, typename... Arguments>
using Checked = Entry<slot, Status*(Arguments...)>;

using CreateStatus = Entry<0, Status*(int code, const char* message)>;
using GetErrorMessage = Entry<2, const char*(const Status*)>;
using CreateEnv = Checked<3, int, const char*, Env**>;
using CreateSession = Checked<7, const Env*, const char*, const SessionOptions*, Session**>;
using Run = Checked<9, Session*, const void*, const char* const*, const Value* const*, std::size_t,
                    const char* const*, std::size_t, Value**>;
using CreateSessionOptions = Checked<10, SessionOptions**>;
using CreateCustomOpDomain = Checked<26, const char*, CustomOpDomain**>;
using CustomOpDomainAdd = Checked<27, CustomOpDomain*, const struct CustomOp*>;
using AddCustomOpDomain = Checked<28, SessionOptions*, CustomOpDomain*>;
using RegisterCustomOpsLibrary = Checked<29, SessionOptions*, const char*, void**>;
using CreateTensorWithData =
    Checked<49, const MemoryInfo*, void*, std::size_t, const std::int64_t*, std::size_t, int, Value**>;
using GetTensorData = Checked<51, Value*, void**>;
using GetElementType = Checked<60, const TensorInfo*, int*>;
using GetRank = Checked<61, const TensorInfo*, std::size_t*>;
using GetDimensions = Checked<62, const TensorInfo*, std::int64_t*, std::size_t>;
using GetElementCount = Checked<64, const TensorInfo*, std::size_t*>;
using GetTensorInfo = Checked<65, const Value*, TensorInfo**>;
using CreateCpuMemoryInfo = Checked<69, int, int, MemoryInfo**>;
using GetFloatAttribute = Checked<85, const KernelInfo*, const char*, float*>;
using GetIntAttribute = Checked<86, const KernelInfo*, const char*, std::int64_t*>;
using GetInput = Checked<90, const KernelContext*, std::size_t, const Value**>;
using GetOutput = Checked<91, KernelContext*, std::size_t, const std::int64_t*, std::size_t, Value**>;
using ReleaseEnv = Entry<92, void(Env*)>;
using ReleaseStatus = Entry<93, void(Status*)>;
using ReleaseMemoryInfo = Entry<94, void(MemoryInfo*)>;
using ReleaseSession = Entry<95, void(Session*)>;
using ReleaseValue = Entry<96, void(Value*)>;
using ReleaseTensorInfo = Entry<99, void(TensorInfo*)>;
using ReleaseSessionOptions = Entry<100, void(SessionOptions*)>;
using ReleaseCustomOpDomain = Entry<101, void(CustomOpDomain*)>;
using GetIntsAttribute = Checked<163, const KernelInfo*, const char*, std::int64_t*, std::size_t*>;
using HasConfigEntry = Checked<237, const SessionOptions*, const char*, int*>;
using GetConfigEntry = Checked<238, const SessionOptions*, const char*, char*, std::size_t*>;
using GetNodeName = Checked<244, const KernelInfo*, char*, std::size_t*>;
using GetConstantInput = Checked<249, const KernelInfo*, std::size_t, int*, const Value**>;
using RunTasks = Checked<274, const KernelContext*, void (*)(void* user, std::size_t index), std::size_t,
                         std::size_t, void*>;

// A function of the table: `get<ReleaseStatus>(api)(status)`.
template <typename E>
typename E::Function* get(const Api* api) {
  using Slot = void (*)();
  return reinterpret_cast<typename E::Function*>(reinterpret_cast<const Slot*>(api)[E::slot]);
}

// An operator as the runtime sees it. It reads the fields that `version` says exist; they are those of
// version 20.
struct CustomOp {
  std::uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*get_name)(const CustomOp*);
  const char* (*get_execution_provider)(const CustomOp*);
  int (*get_input_type)(const CustomOp*, std::size_t);
  std::size_t (*get_input_count)(const CustomOp*);
  int (*get_output_type)(const CustomOp*, std::size_t);
  std::size_t (*get_output_count)(const CustomOp*);
  void (*compute)(void*, KernelContext*);
  void (*destroy_kernel)(void*);
  int (*get_input_characteristic)(const CustomOp*, std::size_t);
  int (*get_output_characteristic)(const CustomOp*, std::size_t);
  int (*get_input_memory_type)(const CustomOp*, std::size_t);
  int (*get_variadic_input_minimum)(const CustomOp*);
  int (*get_variadic_input_homogeneity)(const CustomOp*);
  int (*get_variadic_output_minimum)(const CustomOp*);
  int (*get_variadic_output_homogeneity)(const CustomOp*);
  Status* (*create_kernel_checked)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
  Status* (*compute_checked)(void* kernel, KernelContext*);
  Status* (*infer_output_shape)(const CustomOp*, void*);
  int (*get_start_version)(const CustomOp*);
  int (*get_end_version)(const CustomOp*);
  std::size_t (*get_may_inplace)(int** input, int** output);
  void (*release_may_inplace)(int* input, int* output);
  std::size_t (*get_alias_map)(int** input, int** output);
  void (*release_alias_map)(int* input, int* output);
};

static_assert(sizeof(void*) != 8 || sizeof(CustomOp) == 208, "the layout of API version 20");

}  // namespace equibit::ort
