/* The automaton's steps in 8 bits, all parts of a step in one pass over a few rows, so that only the state, in 16 bits, is ever
   farther away than a core's own caches. export/README.md says what that brings. */
#include "step.h"

#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
enum { GAP = 64 }; /* bytes between the parts of memory that nobody may touch */
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)0)
enum { GAP = 0 };
#endif

#if defined(__x86_64__)
#include "x86.h"
#elif defined(__aarch64__)
#include "neon.h"
#else
static const nca_kernels *find_kernels(int32_t number, const char **name) { return (void)number, (void)name, NULL; }
#endif

enum {
  ROWS = 4,          /* of a pass: some 128 grid cells fire in them; export/README.md has other numbers */
  RING = 2 * ROWS,   /* rows in 8 bits that a step keeps: those of the pass, one above and one below */
  AHEAD = 4,         /* steps that follow one another through the grid, a pass behind: they find its rows in the cache */
  WOVEN = 256,       /* bytes of a column: 64 channels of four rows */
  SPARE = 32         /* grid cells that kernels may write beyond the last */
};

static const nca_kernels *kernels;

/* Choose the instructions that this core is asked for, 0 being the best that it has, and give their name; NULL: it has no
   more. All of them give the same bits. */
const char *nca_choose(int32_t number) {
  const char *name = NULL;
  const nca_kernels *found = find_kernels(number, &name);
  if (found) kernels = found;
  return name;
}

int32_t nca_signed(void) { return kernels->signed_bytes; }
int32_t nca_layout(void) { return NCA_LAYOUT; }

/* Of one cell. */
typedef struct {
  const float *image; /* (grid, grid, pixels) */
  nca_answer answer;
  int16_t *state;
  uint8_t *rings, *woven, *y, *h;
  int16_t **x;
} memory;

static size_t ring_bytes(const nca_automaton *a) { return (size_t)RING * (a->grid + 2) * a->channels; }

static size_t divide(const nca_automaton *a, uint8_t *bytes, memory *m) {
  const size_t grid = a->grid, cells = ROWS * grid + SPARE;
  const size_t sizes[] = {sizeof(int16_t) * grid * grid * a->channels, AHEAD * ring_bytes(a), (grid + 2) * WOVEN,
                          cells * 3 * a->channels, cells * a->hidden, cells * sizeof(int16_t *)};
  uint8_t *parts[6], *next = bytes;
  for (int i = 0; i < 6; i++) {
    parts[i] = next, next += sizes[i];
    if (bytes) ASAN_POISON_MEMORY_REGION(next, GAP);
    next += GAP;
  }
  m->state = (int16_t *)parts[0], m->rings = parts[1], m->woven = parts[2];
  m->y = parts[3], m->h = parts[4], m->x = (int16_t **)parts[5];
  return (size_t)(next - bytes);
}

/* Bytes that a cell needs from its first step to its last. */
size_t nca_memory(const nca_automaton *a) {
  memory m;
  return divide(a, NULL, &m);
}

static int16_t nearest(float x) {
  const float within = x > INT16_MAX ? INT16_MAX : x < INT16_MIN ? INT16_MIN : x, shifted = within + 3 * (1 << 22);
  int32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  return (int16_t)bits;
}

/* A row as the image gives it: all but its channels are 0. */
static void begin_row(const nca_automaton *a, int32_t row, const memory *m) {
  const size_t cells = (size_t)row * a->grid;
  const float *image = m->image + cells * a->pixels;
  int16_t *state = m->state + cells * a->channels;
  memset(state, 0, sizeof(int16_t) * a->grid * a->channels);
  for (int32_t i = 0; i < a->grid; i++, state += a->channels, image += a->pixels)
    for (int32_t c = 0; c < a->pixels; c++) state[c] = nearest(image[c] * a->inward[c]);
}

/* A row as the caller sees it; the image's channels to the bit, not as they were rounded. */
static void end_row(const nca_automaton *a, int32_t row, const memory *m) {
  const size_t cells = (size_t)row * a->grid;
  const float *image = m->image + cells * a->pixels;
  const int16_t *state = m->state + cells * a->channels;
  float *restrict to = m->answer.state + cells * a->seen, *restrict most = m->answer.most;
  double *restrict sum = m->answer.sum;
  for (int32_t i = 0; i < a->grid; i++, state += a->channels, image += a->pixels, to += a->seen) {
    for (int32_t c = a->pixels; c < a->seen; c++) to[c] = state[c] * a->outward[c];
    memcpy(to, image, sizeof(float) * a->pixels);
    for (int32_t c = 0; most && c < a->seen; c++) most[c] = to[c] > most[c] ? to[c] : most[c];
    for (int32_t c = 0; sum && c < a->seen; c++) sum[c] += to[c];
  }
}

/* A row into 8 bits, with what lies beyond both ends: the borders are mirrors. */
static void round_row(const nca_automaton *a, int32_t step, const int16_t *state, int32_t row, uint8_t *ring) {
  const size_t c = a->channels, g = a->grid;
  uint8_t *to = ring + (row % RING) * (g + 2) * c;
  kernels->round(state + row * g * c, g * c, a->rounding[step], to + c);
  memcpy(to, to + 2 * c, c);
  memcpy(to + (g + 1) * c, to + (g - 1) * c, c);
}

/* The row that stands for one beyond the border; of two beyond it, which nobody reads, any. */
static int32_t mirrored(int32_t row, int32_t grid) {
  const int32_t inside = row < 0 ? -row : row < grid ? row : 2 * grid - 2 - row;
  return inside < 0 ? 0 : inside;
}

/* One step of the rows from `first` on, the last one that the caller asks for or not. The row below them is rounded before any
   of these changes. */
static void pass(const nca_automaton *a, int32_t step, int32_t first, int last, uint8_t *ring, const memory *m) {
  const int32_t g = a->grid, end = first + ROWS < g ? first + ROWS : g;
  const size_t c = a->channels, line = (g + 2) * c;
  int32_t n = 0;
  for (int32_t row = first ? first + 1 : 0; row <= end && row < g; row++) {
    if (!step) begin_row(a, row, m);
    round_row(a, step, m->state, row, ring);
  }
  for (int32_t row = first; row < end; row += 2) {
    const int32_t *start = a->starts + (size_t)step * g + row, below = row + 1 < g;
    const int32_t counts[2] = {start[1] - start[0], below ? start[2] - start[1] : 0};
    const uint16_t *columns = a->columns + start[0];
    const uint8_t *rows[4];
    if (!counts[0] && !counts[1]) continue;
    for (int i = 0; i < 4; i++) rows[i] = ring + (mirrored(row + i - 1, g) % RING) * line;
    kernels->perceive(a, step, rows, columns, counts, m->woven, m->y + n * 3 * c);
    for (int which = 0; which < 2; which++)
      for (int32_t i = 0; i < counts[which]; i++) m->x[n++] = m->state + ((size_t)(row + which) * g + *columns++) * c;
  }
  kernels->hide(a, step, m->y, n, m->h);
  kernels->change(a, step, m->h, n, m->x);
  for (int32_t row = first; last && row < end; row++) end_row(a, row, m);
}

/* Steps `first` to before `last`, at least one, of the cell whose memory this is; step 0 begins it with its image. */
void nca_run(const nca_automaton *a, const float *image, uint8_t *bytes, int32_t first, int32_t last, nca_answer answer) {
  const int32_t passes = (a->grid + ROWS - 1) / ROWS;
  memory m = {.image = image, .answer = answer};
  divide(a, bytes, &m);
  kernels->begin();
  for (int32_t from = first; from < last; from += AHEAD) {
    const int32_t many = last - from < AHEAD ? last - from : AHEAD;
    for (int32_t front = 0; front < passes + many - 1; front++)
      for (int32_t t = 0; t < many; t++)
        if (front >= t && front - t < passes)
          pass(a, from + t, (front - t) * ROWS, from + t == last - 1, m.rings + t * ring_bytes(a), &m);
  }
  kernels->end();
}
