/* A delegate that takes the first N operators of a model (option "take") and computes nothing: for tests of the loader.

   The structures are the beginnings of those in tensorflow/lite/core/c/common.h; what follows in newer versions is zero. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct Ints { int size; int data[64]; } Ints;
typedef struct Context Context;
typedef struct Delegate Delegate;
typedef struct Registration {
  void* (*init)(Context*, const char*, size_t);
  void (*free)(Context*, void*);
  int (*prepare)(Context*, void*);
  int (*invoke)(Context*, void*);
  const char* (*profiling_string)(const Context*, const void*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* later_fields[16];
} Registration;
struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(Context*, Ints**);
  void* tensors;
  void* impl;
  void* ResizeTensor;
  void* ReportError;
  void* AddTensors;
  void* GetNodeAndRegistration;
  int (*ReplaceNodeSubsetsWithDelegateKernels)(Context*, Registration, const Ints*, Delegate*);
};
struct Delegate {
  void* data;
  int (*Prepare)(Context*, Delegate*);
  void* CopyFromBufferHandle;
  void* CopyToBufferHandle;
  void* FreeBufferHandle;
  int64_t flags;
  void* later_fields[4];
};

static int take;
static Delegate toy;

static void* init(Context* context, const char* buffer, size_t length) { return NULL; }
static void release(Context* context, void* buffer) {}
static int ok(Context* context, void* node) { return 0; }

static int prepare(Context* context, Delegate* delegate) {
  Ints* plan;
  Ints taken;
  Registration kernel;
  if (context->GetExecutionPlan(context, &plan) != 0) return 1;
  taken.size = plan->size < take ? plan->size : take;
  memcpy(taken.data, plan->data, sizeof(int) * taken.size);
  memset(&kernel, 0, sizeof kernel);
  kernel.init = init;
  kernel.free = release;
  kernel.prepare = ok;
  kernel.invoke = ok;
  kernel.custom_name = "ToyDelegate";
  kernel.version = 1;
  if (taken.size == 0) return 0;
  return context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, &taken, delegate);
}

Delegate* tflite_plugin_create_delegate(const char** keys, const char** values, size_t count, void (*report)(const char*)) {
  size_t i;
  take = 0;
  for (i = 0; i < count; i++) {
    if (strcmp(keys[i], "take") == 0) take = atoi(values[i]);
    if (strcmp(keys[i], "refuse") == 0) { report("no accelerator is plugged in"); return NULL; }
  }
  memset(&toy, 0, sizeof toy);
  toy.Prepare = prepare;
  return &toy;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) {}
