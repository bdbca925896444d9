/* The kernels of x86-64 without AVX-512; included once with DOT, for cores that have AVX-VNNI, and once without. What is laid out
   for 64 bytes is read in two halves of 32, that is of two lanes. */

#ifdef DOT
/* VEX-coded, which the plain mnemonic is not. */
TARGET static inline __m256i NAME(dot)(__m256i sum, __m256i x, __m256i w) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x), "xm"(w));
  return sum;
}
#else
/* Not by vpmaddubsw, whose sums of two products do not fit into its 16 bits. */
TARGET static inline __m256i NAME(dot)(__m256i sum, __m256i x, __m256i w) {
  const __m256i even = _mm256_and_si256(x, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(x, 8);
  const __m256i even_w = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), odd_w = _mm256_srai_epi16(w, 8);
  return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(even, even_w), _mm256_madd_epi16(odd, odd_w)));
}
#endif

TARGET static inline __m256i NAME(load)(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }
TARGET static inline void NAME(store)(void *at, __m256i v) { _mm256_storeu_si256((__m256i *)at, v); }

TARGET static inline __m256i NAME(scaled)(const int32_t *sums, const float *scale) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(NAME(load)(sums)), _mm256_loadu_ps(scale)));
}

TARGET static void NAME(round)(const int16_t *x, size_t n, nca_rounding by, uint8_t *y) {
  const __m256i multiplier = _mm256_set1_epi16((short)by.multiplier), added = _mm256_set1_epi16((short)by.added);
  const __m128i shift = _mm_cvtsi32_si128(by.shift);
  for (size_t i = 0; i < n; i += 64)
    for (size_t g = 0; g < 2; g++) {
      __m256i v[2];
      for (int j = 0; j < 2; j++) {
        v[j] = _mm256_mulhrs_epi16(NAME(load)(x + i + 32 * j + 16 * g), multiplier);
        v[j] = _mm256_sra_epi16(_mm256_adds_epi16(v[j], added), shift);
      }
      NAME(store)(y + i + 32 * g, _mm256_packus_epi16(v[0], v[1]));
    }
}

/* 32 channels of four rows above each other: four bytes a channel. */
TARGET static inline void NAME(weave)(const uint8_t *const rows[4], size_t at, uint8_t *woven) {
  const __m256i a = NAME(load)(rows[0] + at), b = NAME(load)(rows[1] + at);
  const __m256i c = NAME(load)(rows[2] + at), d = NAME(load)(rows[3] + at);
  const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
  const __m256i low_below = _mm256_unpacklo_epi8(c, d), high_below = _mm256_unpackhi_epi8(c, d);
  NAME(store)(woven, _mm256_unpacklo_epi16(low, low_below));
  NAME(store)(woven + 64, _mm256_unpackhi_epi16(low, low_below));
  NAME(store)(woven + 128, _mm256_unpacklo_epi16(high, high_below));
  NAME(store)(woven + 192, _mm256_unpackhi_epi16(high, high_below));
}

/* The lower halves of the numbers of two vectors, by turns. */
TARGET static inline __m256i NAME(lower_halves)(__m256 a, __m256 b) {
  return _mm256_blend_epi16(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(b), 16), 0xAA);
}

/* What n grid cells perceive by both kernels in two lanes of a half of 64 channels. Those of the lower row read the woven rows
   from the second on. */
TARGET static void NAME(convolve)(const nca_automaton *a, int32_t step, size_t chunk, int half, size_t g, int lower,
                                  const uint16_t *columns, int32_t n, const uint8_t *woven, uint8_t *y) {
  const size_t c = a->channels, first = 2 * chunk + 64 * half, at = first + 8 * g;
  const int32_t *bias = a->kernel_bias + (size_t)step * 2 * c + at;
  const float *scale = a->kernel_scales + at, *offset = a->kernel_offsets + at;
  __m256i t[12];
  for (int j = 0; j < 12; j++)
    t[j] = _mm256_sll_epi32(NAME(load)(a->kernels + 12 * first + 64 * j + 32 * g), _mm_cvtsi32_si128(8 * lower));
  for (int32_t i = 0; i < n; i++, y += 3 * c) {
    const uint8_t *near = woven + 256 * columns[i] + 128 * half + 32 * g;
    __m256 v[4];
    for (int j = 0; j < 4; j++) {
      __m256i sum = NAME(load)(bias + 16 * j);
      for (int k = 0; k < 3; k++) sum = NAME(dot)(sum, NAME(load)(near + 256 * k + 64 * (j & 1)), t[3 * j + k]);
      v[j] = _mm256_fmadd_ps(_mm256_castsi256_ps(sum), _mm256_loadu_ps(scale + 16 * j), _mm256_loadu_ps(offset + 16 * j));
    }
    NAME(store)(y + 64 + 64 * half + 32 * g, _mm256_packus_epi16(NAME(lower_halves)(v[0], v[1]), NAME(lower_halves)(v[2], v[3])));
  }
}

TARGET static void NAME(perceive)(const nca_automaton *a, int32_t step, const uint8_t *const rows[4], const uint16_t *columns,
                                  const int32_t n[2], uint8_t *woven, uint8_t *y) {
  const size_t c = a->channels;
  for (size_t chunk = 0; chunk < c; chunk += 64) {
    for (int32_t i = 0; i < a->grid + 2; i++)
      for (size_t g = 0; g < 2; g++) NAME(weave)(rows, i * c + chunk + 32 * g, woven + 256 * i + 32 * g);
    for (int lower = 0; lower < 2; lower++) {
      const uint8_t *row = rows[1 + lower] + c + chunk;
      const uint16_t *own = columns + (lower ? n[0] : 0);
      uint8_t *to = y + (lower ? n[0] : 0) * 3 * c + 3 * chunk;
      for (int32_t i = 0; i < n[lower]; i++) memcpy(to + i * 3 * c, row + own[i] * c, 64);
      for (int half = 0; half < 2; half++)
        for (size_t g = 0; g < 2; g++) NAME(convolve)(a, step, chunk, half, g, lower, own, n[lower], woven, to);
    }
  }
}

/* 4 grid cells times 64 outputs, 16 at a time, whose sums fill half of the registers; bias may be NULL. */
TARGET static inline void NAME(product)(const uint8_t *x, size_t k, const int8_t *w, const int32_t *bias, int32_t s[4][64]) {
  for (int o = 0; o < 64; o += 16, w += 16 * k) {
    __m256i sums[4][2];
    for (int r = 0; r < 4; r++)
      for (int g = 0; g < 2; g++) sums[r][g] = bias ? NAME(load)(bias + o + 8 * g) : _mm256_setzero_si256();
    for (size_t i = 0; i < k; i += 4) {
      const __m256i t[2] = {NAME(load)(w + 16 * i), NAME(load)(w + 16 * i + 32)};
      for (int r = 0; r < 4; r++) {
        int32_t four;
        memcpy(&four, x + r * k + i, 4);
        for (int g = 0; g < 2; g++) sums[r][g] = NAME(dot)(sums[r][g], _mm256_set1_epi32(four), t[g]);
      }
    }
    for (int r = 0; r < 4; r++)
      for (int g = 0; g < 2; g++) NAME(store)(s[r] + o + 8 * g, sums[r][g]);
  }
}

/* 64 outputs of one grid cell, as AVX-512 keeps them. */
TARGET static inline void NAME(keep)(const int32_t *s, const float *scale, uint8_t *to) {
  for (size_t g = 0; g < 2; g++, s += 8, scale += 8) {
    const __m256i low = _mm256_packs_epi32(NAME(scaled)(s, scale), NAME(scaled)(s + 16, scale + 16));
    const __m256i high = _mm256_packs_epi32(NAME(scaled)(s + 32, scale + 32), NAME(scaled)(s + 48, scale + 48));
    NAME(store)(to + 32 * g, _mm256_packus_epi16(low, high));
  }
}

TARGET static inline void NAME(add)(const int32_t *s, const float *scale, int16_t *x) {
  for (int j = 0; j < 4; j += 2)
    for (size_t g = 0; g < 2; g++) {
      const int32_t *sums = s + 16 * j + 8 * g;
      const float *scales = scale + 16 * j + 8 * g;
      int16_t *to = x + 16 * j + 16 * g;
      const __m256i change = _mm256_packs_epi32(NAME(scaled)(sums, scales), NAME(scaled)(sums + 16, scales + 16));
      NAME(store)(to, _mm256_adds_epi16(NAME(load)(to), change));
    }
}

TARGET static void NAME(hide)(const nca_automaton *a, int32_t step, const uint8_t *y, int32_t n, uint8_t *h) {
  const size_t k = 3 * (size_t)a->channels, outputs = a->hidden, at = (size_t)step * outputs;
  int32_t s[4][64];
  for (size_t o = 0; o < outputs; o += 64)
    for (int32_t i = 0; i < n; i += 4) {
      NAME(product)(y + i * k, k, a->w1 + o * k, a->bias1 + at + o, s);
      for (int r = 0; r < 4; r++) NAME(keep)(s[r], a->scale1 + at + o, h + (i + r) * outputs + o);
    }
}

TARGET static void NAME(change)(const nca_automaton *a, int32_t step, const uint8_t *h, int32_t n, int16_t *const *x) {
  const size_t k = a->hidden, outputs = a->channels, at = (size_t)step * outputs;
  int32_t s[4][64];
  for (size_t o = 0; o < outputs; o += 64)
    for (int32_t i = 0; i < n; i += 4) {
      NAME(product)(h + i * k, k, a->w2 + o * k, NULL, s);
      for (int r = 0; r < 4 && i + r < n; r++) NAME(add)(s[r], a->scale2 + at + o, x[i + r] + o);
    }
}
