// JNI over ExecuTorch's Module: what the stand-in of org.pytorch.executorch calls. One native
// object a module; outputs are views into the method's memory, valid until its next call, as in
// the Android library.
#include <jni.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/backend/interface.h>

// The wheel has the library of the thread pool, but not its header.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  std::size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(std::uint32_t new_thread_count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;

struct Loaded {
  Loaded(const std::string& path, Module::LoadMode mode) : module(path, mode) {}

  Module module;
  std::map<std::string, std::vector<EValue>> outputs;
};

Loaded& loaded(jlong handle) { return *reinterpret_cast<Loaded*>(handle); }

std::string text(JNIEnv* env, jstring given) {
  const char* chars = env->GetStringUTFChars(given, nullptr);
  std::string copy(chars);
  env->ReleaseStringUTFChars(given, chars);
  return copy;
}

jobjectArray strings(JNIEnv* env, const std::vector<std::string>& given) {
  jclass kind = env->FindClass("java/lang/String");
  jobjectArray array = env->NewObjectArray(static_cast<jsize>(given.size()), kind, nullptr);
  for (jsize i = 0; i < env->GetArrayLength(array); ++i) {
    env->SetObjectArrayElement(array, i, env->NewStringUTF(given[i].c_str()));
  }
  return array;
}

void raise(JNIEnv* env, Error error, const std::string& what) {
  jclass kind = env->FindClass("org/pytorch/executorch/ExecutorchRuntimeException");
  jmethodID make = env->GetMethodID(kind, "<init>", "(ILjava/lang/String;)V");
  const std::string details = what + ": " + executorch::runtime::to_string(error);
  env->Throw(static_cast<jthrowable>(env->NewObject(
      kind, make, static_cast<jint>(error), env->NewStringUTF(details.c_str()))));
}

const executorch::aten::Tensor& output(jlong handle, const std::string& method, jint index) {
  return loaded(handle).outputs.at(method).at(static_cast<std::size_t>(index)).toTensor();
}

}  // namespace

#define NATIVE(type, name) \
  extern "C" JNIEXPORT type JNICALL Java_org_pytorch_executorch_NativeModule_##name

NATIVE(jlong, create)(JNIEnv* env, jclass, jstring path, jint mode, jint threads) {
  // As on Android: the pool is only made anew where the count differs.
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (threads > 0 && pool->get_thread_count() != static_cast<std::size_t>(threads)) {
    pool->_unsafe_reset_threadpool(static_cast<std::uint32_t>(threads));
  }
  auto made = std::make_unique<Loaded>(text(env, path), static_cast<Module::LoadMode>(mode));
  const Error error = made->module.load();
  if (error != Error::Ok) {
    raise(env, error, "load " + text(env, path));
    return 0;
  }
  return reinterpret_cast<jlong>(made.release());
}

NATIVE(void, destroy)(JNIEnv*, jclass, jlong handle) { delete &loaded(handle); }

NATIVE(jobjectArray, methods)(JNIEnv* env, jclass, jlong handle) {
  const auto names = loaded(handle).module.method_names();
  if (!names.ok()) {
    raise(env, names.error(), "list methods");
    return nullptr;
  }
  return strings(env, {names->begin(), names->end()});
}

NATIVE(jobjectArray, backends)(JNIEnv* env, jclass, jlong handle, jstring method) {
  const auto meta = loaded(handle).module.method_meta(text(env, method));
  if (!meta.ok()) {
    raise(env, meta.error(), "describe " + text(env, method));
    return nullptr;
  }
  std::vector<std::string> names;
  for (std::size_t i = 0; i < meta->num_backends(); ++i) {
    names.emplace_back(meta->get_backend_name(i).get());
  }
  return strings(env, names);
}

NATIVE(jint, loadMethod)(JNIEnv* env, jclass, jlong handle, jstring method) {
  return static_cast<jint>(loaded(handle).module.load_method(text(env, method)));
}

// Buffers are direct; they and what they hold belong to the caller, who keeps them.
NATIVE(jint, execute)(JNIEnv* env, jclass, jlong handle, jstring method, jobjectArray buffers,
                      jobjectArray shapes, jintArray types) {
  const auto name = text(env, method);
  std::vector<executorch::extension::TensorPtr> tensors;
  std::vector<EValue> values;
  jint* kinds = env->GetIntArrayElements(types, nullptr);
  for (jsize i = 0; i < env->GetArrayLength(buffers); ++i) {
    jobject buffer = env->GetObjectArrayElement(buffers, i);
    auto shape = static_cast<jlongArray>(env->GetObjectArrayElement(shapes, i));
    jlong* given = env->GetLongArrayElements(shape, nullptr);
    const std::vector<SizesType> sizes(given, given + env->GetArrayLength(shape));
    env->ReleaseLongArrayElements(shape, given, JNI_ABORT);
    tensors.push_back(executorch::extension::from_blob(
        env->GetDirectBufferAddress(buffer), sizes, static_cast<ScalarType>(kinds[i])));
    values.emplace_back(*tensors.back());
    env->DeleteLocalRef(shape);
    env->DeleteLocalRef(buffer);
  }
  env->ReleaseIntArrayElements(types, kinds, JNI_ABORT);
  auto result = loaded(handle).module.execute(name, values);
  if (!result.ok()) {
    raise(env, result.error(), "execute " + name);
    return 0;
  }
  auto& kept = loaded(handle).outputs[name];
  kept = std::move(result.get());
  return static_cast<jint>(kept.size());
}

NATIVE(jobject, outputData)(JNIEnv* env, jclass, jlong handle, jstring method, jint index) {
  const auto& tensor = output(handle, text(env, method), index);
  return env->NewDirectByteBuffer(tensor.mutable_data_ptr(), static_cast<jlong>(tensor.nbytes()));
}

NATIVE(jlongArray, outputShape)(JNIEnv* env, jclass, jlong handle, jstring method, jint index) {
  const auto& tensor = output(handle, text(env, method), index);
  const std::vector<jlong> sizes(tensor.sizes().begin(), tensor.sizes().end());
  jlongArray array = env->NewLongArray(static_cast<jsize>(sizes.size()));
  env->SetLongArrayRegion(array, 0, static_cast<jsize>(sizes.size()), sizes.data());
  return array;
}

NATIVE(jint, outputType)(JNIEnv* env, jclass, jlong handle, jstring method, jint index) {
  return static_cast<jint>(output(handle, text(env, method), index).scalar_type());
}

NATIVE(jobjectArray, registeredBackends)(JNIEnv* env, jclass) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < executorch::runtime::get_num_registered_backends(); ++i) {
    names.emplace_back(executorch::runtime::get_backend_name(i).get());
  }
  return strings(env, names);
}
