/* x86-64: matrix products of AMX, where the core and the kernel of Linux allow them, or dot products of AVX-512 VNNI, of AVX-VNNI,
   or put together of AVX2. */
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "x86_512.h"
#define NAME(function) function##_avx_vnni
#define TARGET __attribute__((target("avx2,fma")))
#define DOT
#include "x86_256.h"
#undef NAME
#undef DOT
#define NAME(function) function##_avx2
#include "x86_256.h"

static void nothing(void) {}

static const nca_kernels AMX_KERNELS = {0, begin_amx, end_amx, round_vnni, perceive_vnni, hide_amx, change_amx};
static const nca_kernels VNNI_KERNELS = {0, nothing, nothing, round_vnni, perceive_vnni, hide_vnni, change_vnni};
static const nca_kernels AVX_VNNI_KERNELS = {
    0, nothing, nothing, round_avx_vnni, perceive_avx_vnni, hide_avx_vnni, change_avx_vnni};
static const nca_kernels AVX2_KERNELS = {0, nothing, nothing, round_avx2, perceive_avx2, hide_avx2, change_avx2};

/* What the core can do and Linux saves of it, by the bits below. Not by __builtin_cpu_supports, which knows nothing where zig is
   the compiler. */
enum { AVX2 = 1, AVX_VNNI = 2, AVX512_VNNI = 4, AMX_INT8 = 8 };

static unsigned saved_states(void) {
  unsigned eax, edx;
  __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return eax;
}

static int features(void) {
  enum { FMA = 1 << 12, XSAVE = 1 << 27, YMM = 0x6, ZMM = 0xe6, TILES = 1 << 17 | 1 << 18 };
  const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31 /* F, DQ, BW, VL */, amx = 1u << 24 | 1u << 25;
  unsigned a, b, c, d, a1, b1, c1, d1;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (FMA | XSAVE)) != (FMA | XSAVE)) return 0;
  const unsigned saved = saved_states();
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1 << 5) || (saved & YMM) != YMM) return 0;
  int found = AVX2;
  if (a && __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) && (a1 & 1 << 4)) found |= AVX_VNNI;
  if ((b & avx512) == avx512 && (c & 1 << 11) && (saved & ZMM) == ZMM) {
    found |= AVX512_VNNI;
    if ((d & amx) == amx && (saved & TILES) == TILES) found |= AMX_INT8;
  }
  return found;
}

/* Tiles are a state that a process must ask Linux for. */
static int amx_allowed(void) {
  enum { REQUEST = 0x1023, TILE_DATA = 18 };
  return !syscall(SYS_arch_prctl, REQUEST, TILE_DATA);
}

static const nca_kernels *find_kernels(int32_t number, const char **name) {
  const int found = features();
  const struct {
    int here;
    const char *name;
    const nca_kernels *kernels;
  } all[] = {
      {(found & AMX_INT8) && amx_allowed(), "amx-int8", &AMX_KERNELS},
      {found & AVX512_VNNI, "avx512-vnni", &VNNI_KERNELS},
      {found & AVX_VNNI, "avx-vnni", &AVX_VNNI_KERNELS},
      {found & AVX2, "avx2", &AVX2_KERNELS},
  };
  for (int i = 0; i < 4; i++)
    if (all[i].here && !number--) return *name = all[i].name, all[i].kernels;
  return NULL;
}
