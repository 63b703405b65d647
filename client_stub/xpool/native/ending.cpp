// The process ends while threads of it still work: daemon threads, autograd's own. None of them may abort it.
//
// Before 3.14 CPython ends a thread that asks for the interpreter's lock after finalization has begun. It calls
// pthread_exit, which unwinds the thread's stack; frames of torch do not allow that, and the C++ runtime aborts with
// "terminate called without an active exception". From 3.14 on such a thread waits for the process to end. Here the
// older ones get the same: the interpreter's import of pthread_exit leads to a wait.
#include "ending.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

namespace xpool {

namespace {

std::atomic<bool> ending{false};
pthread_t ending_thread;

template <typename Function>
Function python(const char *name) {
  return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

[[noreturn]] void wait_for_the_end() {
  for (;;)
    pause();
}

[[noreturn]] void exit_or_wait(void *result) {
  static const auto is_initialized = python<int (*)()>("Py_IsInitialized");
  // Finalization begins with making this false.
  if (is_initialized && !is_initialized())
    wait_for_the_end();
  pthread_exit(result);
}

struct Patch {
  const void *address;  // something inside the object whose import is replaced
  bool done;
};

template <typename Value>
Value *table(const ElfW(Dyn) * dynamic, ElfW(Sxword) tag) {
  for (; dynamic->d_tag != DT_NULL; dynamic++)
    if (dynamic->d_tag == tag)
      return reinterpret_cast<Value *>(dynamic->d_un.d_ptr);
  return nullptr;
}

size_t number(const ElfW(Dyn) * dynamic, ElfW(Sxword) tag) {
  for (; dynamic->d_tag != DT_NULL; dynamic++)
    if (dynamic->d_tag == tag)
      return dynamic->d_un.d_val;
  return 0;
}

bool replace(void **slot) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto start = reinterpret_cast<uintptr_t>(slot) & ~(page - 1);
  // It may be read-only since the program was loaded; it stays writable, as it is where binding is lazy.
  if (mprotect(reinterpret_cast<void *>(start), page, PROT_READ | PROT_WRITE) != 0)
    return false;
  *slot = reinterpret_cast<void *>(&exit_or_wait);
  return true;
}

bool replace_import(ElfW(Addr) base, const ElfW(Dyn) * dynamic) {
  const auto *symbols = table<const ElfW(Sym)>(dynamic, DT_SYMTAB);
  const char *names = table<const char>(dynamic, DT_STRTAB);
  const struct {
    ElfW(Sxword) where, nbytes;
  } tables[] = {{DT_JMPREL, DT_PLTRELSZ}, {DT_RELA, DT_RELASZ}};
  bool done = false;
  for (const auto &one : tables) {
    const auto *row = table<const ElfW(Rela)>(dynamic, one.where);
    const size_t count = row ? number(dynamic, one.nbytes) / sizeof(*row) : 0;
    for (size_t i = 0; i < count; i++) {
      const size_t symbol = ELF64_R_SYM(row[i].r_info);
      if (symbol && !strcmp(names + symbols[symbol].st_name, "pthread_exit"))
        done = replace(reinterpret_cast<void **>(base + row[i].r_offset)) || done;
    }
  }
  return done;
}

int visit(dl_phdr_info *object, size_t, void *data) {
  auto *patch = static_cast<Patch *>(data);
  const ElfW(Dyn) *dynamic = nullptr;
  bool is_it = false;
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr) &part = object->dlpi_phdr[i];
    const auto start = object->dlpi_addr + part.p_vaddr;
    const auto address = reinterpret_cast<uintptr_t>(patch->address);
    if (part.p_type == PT_DYNAMIC)
      dynamic = reinterpret_cast<const ElfW(Dyn) *>(start);
    is_it = is_it || (part.p_type == PT_LOAD && address >= start && address < start + part.p_memsz);
  }
  if (!is_it || !dynamic)
    return 0;
  patch->done = replace_import(object->dlpi_addr, dynamic);
  return 1;
}

}  // namespace

bool let_late_threads_wait() {
  Patch patch{dlsym(RTLD_DEFAULT, "PyEval_SaveThread"), false};
  if (patch.address)
    dl_iterate_phdr(&visit, &patch);
  return patch.done;
}

void begin_ending() {
  ending_thread = pthread_self();
  ending = true;
}

bool is_ending() { return ending; }

void wait_if_ending() {
  if (!ending || pthread_equal(ending_thread, pthread_self()))
    return;
  static const auto is_initialized = python<int (*)()>("Py_IsInitialized");
  static const auto has_lock = python<int (*)()>("PyGILState_Check");
  static const auto release_lock = python<void *(*)()>("PyEval_SaveThread");
  if (is_initialized && is_initialized() && has_lock && has_lock() && release_lock)
    release_lock();
  wait_for_the_end();
}

}  // namespace xpool
