/* The kernels of x86-64 with AVX-512 VNNI, and what AMX does instead of them. */

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")))
#define AMX __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,amx-tile,amx-int8")))

/* The intrinsic makes GCC 12 copy sums between registers: a third slower. */
VNNI static inline __m512i dot(__m512i sum, __m512i x, __m512i w) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "vm"(w));
  return sum;
}

VNNI static inline __m512i scaled(__m512i sum, const float *scale) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(scale)));
}

VNNI static void round_vnni(const int16_t *x, size_t n, nca_rounding by, uint8_t *y) {
  const __m512i multiplier = _mm512_set1_epi16((short)by.multiplier), added = _mm512_set1_epi16((short)by.added);
  const __m128i shift = _mm_cvtsi32_si128(by.shift);
  for (size_t i = 0; i < n; i += 64) {
    __m512i v[2];
    for (int j = 0; j < 2; j++) {
      v[j] = _mm512_mulhrs_epi16(_mm512_loadu_si512(x + i + 32 * j), multiplier);
      v[j] = _mm512_sra_epi16(_mm512_adds_epi16(v[j], added), shift);
    }
    _mm512_storeu_si512(y + i, _mm512_packus_epi16(v[0], v[1]));
  }
}

/* 64 channels of four rows above each other: four bytes a channel. */
VNNI static inline void weave(const uint8_t *const rows[4], size_t at, __m512i *woven) {
  const __m512i a = _mm512_loadu_si512(rows[0] + at), b = _mm512_loadu_si512(rows[1] + at);
  const __m512i c = _mm512_loadu_si512(rows[2] + at), d = _mm512_loadu_si512(rows[3] + at);
  const __m512i low = _mm512_unpacklo_epi8(a, b), high = _mm512_unpackhi_epi8(a, b);
  const __m512i low_below = _mm512_unpacklo_epi8(c, d), high_below = _mm512_unpackhi_epi8(c, d);
  woven[0] = _mm512_unpacklo_epi16(low, low_below);
  woven[1] = _mm512_unpackhi_epi16(low, low_below);
  woven[2] = _mm512_unpacklo_epi16(high, high_below);
  woven[3] = _mm512_unpackhi_epi16(high, high_below);
}

/* The lower halves of the numbers of two vectors, by turns. */
VNNI static inline __m512i lower_halves(__m512 a, __m512 b) {
  const __m512i into_upper = _mm512_set4_epi32(0x0d0c0000, 0x09080000, 0x05040000, 0x01000000);
  return _mm512_mask_shuffle_epi8(_mm512_castps_si512(a), 0xCCCCCCCCCCCCCCCC, _mm512_castps_si512(b), into_upper);
}

/* What n grid cells perceive by both kernels in a half of 64 channels, that is in every other 8; with half 0 their own in all
   64 are copied besides. Those of the lower row read the woven rows from the second on. */
VNNI static void convolve(const nca_automaton *a, int32_t step, size_t chunk, int half, int lower, const uint8_t *row,
                          const uint16_t *columns, int32_t n, const __m512i *woven, uint8_t *y) {
  const size_t c = a->channels, first = 2 * chunk + 64 * half;
  const int32_t *biases = a->kernel_bias + (size_t)step * 2 * c + first;
  __m512i t[12], bias[4];
  __m512 scale[4], offset[4];
  for (int j = 0; j < 12; j++)
    t[j] = _mm512_sll_epi32(_mm512_loadu_si512(a->kernels + 12 * first + 64 * j), _mm_cvtsi32_si128(8 * lower));
  for (int j = 0; j < 4; j++) {
    bias[j] = _mm512_loadu_si512(biases + 16 * j);
    scale[j] = _mm512_loadu_ps(a->kernel_scales + first + 16 * j), offset[j] = _mm512_loadu_ps(a->kernel_offsets + first + 16 * j);
  }
  for (int32_t i = 0; i < n; i++, y += 3 * c) {
    const __m512i *near = woven + 4 * columns[i] + 2 * half;
    const __m512i x[6] = {near[0], near[1], near[4], near[5], near[8], near[9]};
    __m512 v[4];
    for (int j = 0; j < 4; j++) {
      const __m512i sum = dot(dot(dot(bias[j], x[j & 1], t[3 * j]), x[2 + (j & 1)], t[3 * j + 1]), x[4 + (j & 1)], t[3 * j + 2]);
      v[j] = _mm512_fmadd_ps(_mm512_castsi512_ps(sum), scale[j], offset[j]);
    }
    if (!half) _mm512_storeu_si512(y, _mm512_loadu_si512(row + columns[i] * c));
    _mm512_storeu_si512(y + 64 + 64 * half, _mm512_packus_epi16(lower_halves(v[0], v[1]), lower_halves(v[2], v[3])));
  }
}

VNNI static void perceive_vnni(const nca_automaton *a, int32_t step, const uint8_t *const rows[4], const uint16_t *columns,
                               const int32_t n[2], uint8_t *woven, uint8_t *y) {
  const size_t c = a->channels;
  const __m512i *w = (const __m512i *)woven;
  for (size_t chunk = 0; chunk < c; chunk += 64) {
    for (int32_t i = 0; i < a->grid + 2; i++) weave(rows, i * c + chunk, (__m512i *)woven + 4 * i);
    for (int lower = 0; lower < 2; lower++) {
      const uint8_t *row = rows[1 + lower] + c + chunk;
      const uint16_t *own = columns + (lower ? n[0] : 0);
      uint8_t *to = y + (lower ? n[0] : 0) * 3 * c + 3 * chunk;
      for (int half = 0; half < 2; half++) convolve(a, step, chunk, half, lower, row, own, n[lower], w, to);
    }
  }
}

/* 64 outputs of one grid cell, lane by lane; layout.py knows the order. What is negative becomes 0. */
VNNI static inline void keep(const __m512i s[4], const float *scale, uint8_t *to) {
  __m512i v[4];
  for (int j = 0; j < 4; j++) v[j] = scaled(s[j], scale + 16 * j);
  _mm512_storeu_si512(to, _mm512_packus_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3])));
}

VNNI static inline void add(const __m512i s[4], const float *scale, int16_t *x) {
  for (int j = 0; j < 4; j += 2) {
    const __m512i change = _mm512_packs_epi32(scaled(s[j], scale + 16 * j), scaled(s[j + 1], scale + 16 * j + 16));
    _mm512_storeu_si512(x + 16 * j, _mm512_adds_epi16(_mm512_loadu_si512(x + 16 * j), change));
  }
}

/* 4 grid cells times 64 outputs; bias may be NULL. */
VNNI static inline void product_vnni(const uint8_t *x, size_t k, const int8_t *w, const int32_t *bias, __m512i s[4][4]) {
  for (int r = 0; r < 4; r++)
    for (int j = 0; j < 4; j++) s[r][j] = bias ? _mm512_loadu_si512(bias + 16 * j) : _mm512_setzero_si512();
  for (size_t i = 0; i < k; i += 4) {
    __m512i t[4];
    for (int j = 0; j < 4; j++) t[j] = _mm512_loadu_si512(w + 16 * (j * k + i));
    for (int r = 0; r < 4; r++) {
      int32_t four;
      memcpy(&four, x + r * k + i, 4);
      for (int j = 0; j < 4; j++) s[r][j] = dot(s[r][j], _mm512_set1_epi32(four), t[j]);
    }
  }
}

VNNI static void hide_vnni(const nca_automaton *a, int32_t step, const uint8_t *y, int32_t n, uint8_t *h) {
  const size_t k = 3 * (size_t)a->channels, outputs = a->hidden, at = (size_t)step * outputs;
  for (size_t o = 0; o < outputs; o += 64)
    for (int32_t i = 0; i < n; i += 4) {
      __m512i s[4][4];
      product_vnni(y + i * k, k, a->w1 + o * k, a->bias1 + at + o, s);
      for (int r = 0; r < 4; r++) keep(s[r], a->scale1 + at + o, h + (i + r) * outputs + o);
    }
}

VNNI static void change_vnni(const nca_automaton *a, int32_t step, const uint8_t *h, int32_t n, int16_t *const *x) {
  const size_t k = a->hidden, outputs = a->channels, at = (size_t)step * outputs;
  for (size_t o = 0; o < outputs; o += 64)
    for (int32_t i = 0; i < n; i += 4) {
      __m512i s[4][4];
      product_vnni(h + i * k, k, a->w2 + o * k, NULL, s);
      for (int r = 0; r < 4 && i + r < n; r++) add(s[r], a->scale2 + at + o, x[i + r] + o);
    }
}

/* 32 grid cells (16 where they are the last) times 64 outputs, two times two tiles of 16 x 16 at once; bias may be NULL.
   GCC does not know that tiles read and write memory. */
AMX static inline void product_amx(const uint8_t *x, size_t k, const int8_t *w, const int32_t *bias, int two, int32_t *s) {
  __asm__ volatile("" ::: "memory");
  for (int side = 0; side < 64; side += 32) {
    if (bias) {
      _tile_loadd(0, bias + side, 0);
      _tile_loadd(1, bias + side + 16, 0);
      _tile_loadd(2, bias + side, 0);
      _tile_loadd(3, bias + side + 16, 0);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    for (size_t i = 0; i < k; i += 64) {
      _tile_loadd(4, x + i, k);
      _tile_loadd(6, w + side * k + i * 16, 64);
      _tile_loadd(7, w + (side + 16) * k + i * 16, 64);
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 4, 7);
      if (two) {
        _tile_loadd(5, x + 16 * k + i, k);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
      }
    }
    _tile_stored(0, s + side, 256);
    _tile_stored(1, s + side + 16, 256);
    if (two) {
      _tile_stored(2, s + 16 * 64 + side, 256);
      _tile_stored(3, s + 16 * 64 + side + 16, 256);
    }
  }
  __asm__ volatile("" ::: "memory");
}

AMX static inline void sums_of(const int32_t *s, __m512i v[4]) {
  for (int j = 0; j < 4; j++) v[j] = _mm512_load_si512(s + 16 * j);
}

AMX static void hide_amx(const nca_automaton *a, int32_t step, const uint8_t *y, int32_t n, uint8_t *h) {
  const size_t k = 3 * (size_t)a->channels, outputs = a->hidden, at = (size_t)step * outputs;
  int32_t s[32 * 64] __attribute__((aligned(64)));
  for (size_t o = 0; o < outputs; o += 64)
    for (int32_t i = 0; i < n; i += 32) {
      product_amx(y + i * k, k, a->w1 + o * k, a->bias1 + at + o, n - i > 16, s);
      for (int r = 0; r < 32 && i + r < n; r++) {
        __m512i v[4];
        sums_of(s + 64 * r, v);
        keep(v, a->scale1 + at + o, h + (i + r) * outputs + o);
      }
    }
}

AMX static void change_amx(const nca_automaton *a, int32_t step, const uint8_t *h, int32_t n, int16_t *const *x) {
  const size_t k = a->hidden, outputs = a->channels, at = (size_t)step * outputs;
  int32_t s[32 * 64] __attribute__((aligned(64)));
  for (int32_t i = 0; i < n; i += 32)
    for (size_t o = 0; o < outputs; o += 64) {
      product_amx(h + i * k, k, a->w2 + o * k, NULL, n - i > 16, s);
      for (int r = 0; r < 32 && i + r < n; r++) {
        __m512i v[4];
        sums_of(s + 64 * r, v);
        add(v, a->scale2 + at + o, x[i + r] + o);
      }
    }
}

/* Eight tiles of 16 rows of 64 bytes. */
static const struct {
  uint8_t palette, start, none[14];
  uint16_t bytes[16];
  uint8_t rows[16];
} TILES __attribute__((aligned(64))) = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

AMX static void begin_amx(void) { _tile_loadconfig(&TILES); }
AMX static void end_amx(void) { _tile_release(); }
