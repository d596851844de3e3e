// Preloaded into SwapVictim: ends it at the n-th call that changes files, n = PERSONA_KILL_AT, once
// PERSONA_ARMED is set. A write is half done by then.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static int strikes(void) {
  static int calls = 0;
  const char* at = getenv("PERSONA_KILL_AT");
  return getenv("PERSONA_ARMED") && at && ++calls == atoi(at);
}

static void end(void) { kill(getpid(), SIGKILL); }

ssize_t write(int file, const void* bytes, size_t count) {
  ssize_t (*next)(int, const void*, size_t) = dlsym(RTLD_NEXT, "write");
  if (file > 2 && strikes()) {
    next(file, bytes, count / 2);
    end();
  }
  return next(file, bytes, count);
}

int fsync(int file) {
  int (*next)(int) = dlsym(RTLD_NEXT, "fsync");
  if (strikes()) end();
  return next(file);
}

int rename(const char* from, const char* to) {
  int (*next)(const char*, const char*) = dlsym(RTLD_NEXT, "rename");
  if (strikes()) end();
  return next(from, to);
}

int unlink(const char* path) {
  int (*next)(const char*) = dlsym(RTLD_NEXT, "unlink");
  if (strikes()) end();
  return next(path);
}
