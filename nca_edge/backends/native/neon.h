/* 64-bit ARM: cores with dot products (Cortex-A76, A78) and without (Cortex-A72). */
#include <arm_neon.h>
#include <sys/auxv.h>

#define NAME(function) function##_dot
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define DOT
#include "neon_kernels.h"
#undef NAME
#undef TARGET
#undef DOT
#define NAME(function) function##_mul
#define TARGET
#include "neon_kernels.h"

static void nothing(void) {}

static const nca_kernels DOT_KERNELS = {1, nothing, nothing, round_dot, perceive_dot, hide_dot, change_dot};
static const nca_kernels MUL_KERNELS = {1, nothing, nothing, round_mul, perceive_mul, hide_mul, change_mul};

static const nca_kernels *find_kernels(int32_t number, const char **name) {
  enum { DOT_PRODUCTS = 1 << 20 };
  const int dot = (getauxval(AT_HWCAP) & DOT_PRODUCTS) != 0;
  if (number > dot) return NULL;
  *name = number < dot ? "neon-dotprod" : "neon";
  return number < dot ? &DOT_KERNELS : &MUL_KERNELS;
}
