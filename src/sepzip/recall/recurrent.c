/* The recurrent network of a memory of contexts: its meaning, and how CPUs run it.

   Two layers of gated units (LSTM with coupled gates) read each lane's bytes, and a weight for each unit at each
   node of a byte's tree makes of them the logit of a bit, one more input of the mixer. Nodes learn after every
   step; the units' weights after every WINDOW steps, by the slopes of that window alone, one step late.

   Products and their sums are whole numbers, which may be added in any order; they wrap modulo 2^32. A weight and
   its mean square move by single operations of IEEE float32, none of them fused. So all is the same everywhere:
   recurrent kernels on a GPU are equal to it. Shifts of negative numbers round down.

   There is a build of all of it for each set of vector instructions, and one without, with the same results. */

#include "recurrent.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define X86
#define SSE2 "sse2"
#define AVX2 "avx2"
#define AVX512 "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
#include <immintrin.h>
#endif

#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error "float must be computed as float: build for SSE2 or newer (-msse2 -mfpmath=sse)"
#endif

/* Inlined into each build, and so built for its instructions. */
#define ALWAYS __attribute__((always_inline)) static inline

enum {
    UNITS = 64, LAYERS = 2, GATES = 3 * UNITS, INPUTS = 2 * UNITS, OUTPUTS = LAYERS * UNITS, WINDOW = 20,
    KEPT = 5, SQUASH_MOST = 3071, LOGIT_MOST = 2303, HALF = 1 << 14, ONE = 1 << 15, SLOPE_MOST = ONE - 1,
    DELTA_MOST = 8191, TASK_INPUTS = INPUTS / RECURRENT_TASKS, CHUNK = 32
};

/* What is kept of a layer's step for the way back. */
enum { FORGET, OUTPUT, CANDIDATE, BEFORE, AFTER };

/* How far weights move, of units and of nodes; what is kept of a mean square; what is added to a square. */
static const float RATE = 0.004f, NODE_RATE = 0.006f, KEEP = 0.999f, LEAST_UNIT = 700000.0f, LEAST_NODE = 44000.0f;
static const float WHOLE = 4096.0f, ROUND = 12582912.0f;

ALWAYS int32_t bounded(int32_t x, int32_t most) { return x < -most ? -most : x > most ? most : x; }

/* x / 2^15, rounded to nearest. */
ALWAYS int32_t fifteenth(int32_t x) { return (x + HALF) >> 15; }

/* The whole number next to x, |x| < 2^22, of two the even one. */
ALWAYS int32_t rounded(float x) {
    union { float number; int32_t bits; } sum = {x + ROUND};
    return sum.bits - 0x4B400000;
}

/* 1 / sqrt(x): a guess from the bits and a Newton step, right to 0.2 %. */
ALWAYS float inverse_root(float x) {
    union { float number; int32_t bits; } guess = {x};
    guess.bits = 0x5F3759DF - (guess.bits >> 1);
    float half = 0.5f * x, y = guess.number;
    float correction = 1.5f - half * y * y;
    return y * correction;
}

/* x, at most 4 on either side. Sizes of floats are ordered as their bits, of which compilers make vectors. */
ALWAYS float bounded_weight(float x) {
    union { float number; int32_t bits; } weight = {x};
    int32_t size = weight.bits & 0x7FFFFFFF;
    weight.bits = (size < 0x40800000 ? size : 0x40800000) | (weight.bits & INT32_MIN);
    return weight.number;
}

/* Move weights along their gradient by its size beside what is usual, and round them. */
ALWAYS void move(
    int count, float *restrict weights, float *restrict squares, int16_t *restrict whole,
    const int32_t *restrict gradient, float rate, float least
) {
    for (int i = 0; i < count; i++) {
        float g = (float)gradient[i];
        float seen = g * g + least;
        float square = squares[i] * KEEP + seen * (1.0f - KEEP);
        float change = g * rate;
        float weight = weights[i] + change * inverse_root(square);
        weight = bounded_weight(weight);
        squares[i] = square;
        weights[i] = weight;
        whole[i] = (int16_t)rounded(weight * WHOLE);
    }
}

ALWAYS int32_t dot(const int16_t *restrict a, const int16_t *restrict b, int count) {
    int32_t total = 0;
    for (int i = 0; i < count; i++) total += (int32_t)a[i] * b[i];
    return total;
}

/* sums[i] += pairs[n][0] * rows[n][i][0] + pairs[n][1] * rows[n][i][1], for i < columns and n < count. Rows lie
   row_stride numbers apart, and pairs pair_stride. There are 64 or 192 columns, and an even
   number of rows. */
typedef void Multiply(
    int32_t *restrict sums, int columns, const int16_t *restrict rows, int64_t row_stride,
    const int16_t *restrict pairs, int64_t pair_stride, int64_t count
);

static void multiply_plain(
    int32_t *restrict sums, int columns, const int16_t *restrict rows, int64_t row_stride,
    const int16_t *restrict pairs, int64_t pair_stride, int64_t count
) {
    for (int64_t n = 0; n < count; n++, rows += row_stride, pairs += pair_stride) {
        int32_t first = pairs[0], second = pairs[1];
        for (int i = 0; i < columns; i++) sums[i] += first * rows[2 * i] + second * rows[2 * i + 1];
    }
}

#ifdef X86
/* Two products and their sum are one instruction, wrapping as here. With `chains` 2 even rows are added up beside odd
   ones: an instruction does not wait for the one before. */
#define MULTIPLY(name, instructions, vector, size, load, store, spread, add, add_products)                             \
    __attribute__((target(instructions), always_inline)) static inline void columns_##name(                            \
        int32_t *restrict sums, const int vectors, const int chains, const int16_t *restrict rows, int64_t row_stride, \
        const int16_t *restrict pairs, int64_t pair_stride, int64_t count                                              \
    ) {                                                                                                                \
        vector totals[12];                                                                                             \
        for (int i = 0; i < vectors; i++) {                                                                            \
            totals[i] = load((const void *)(sums + i * size));                                                         \
            if (chains == 2) totals[vectors + i] = spread(0);                                                          \
        }                                                                                                              \
        for (int64_t n = 0; n < count; n += chains) {                                                                  \
            for (int chain = 0; chain < chains; chain++, rows += row_stride, pairs += pair_stride) {                   \
                int32_t pair;                                                                                          \
                memcpy(&pair, pairs, sizeof pair);                                                                     \
                vector both = spread(pair), *own = totals + chain * vectors;                                           \
                for (int i = 0; i < vectors; i++) {                                                                    \
                    own[i] = add_products(own[i], load((const void *)(rows + 2 * i * size)), both);                    \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        for (int i = 0; i < vectors; i++) {                                                                            \
            store((void *)(sums + i * size), chains == 2 ? add(totals[i], totals[vectors + i]) : totals[i]);           \
        }                                                                                                              \
    }

#define ADD_PRODUCTS_128(totals, a, b) _mm_add_epi32(totals, _mm_madd_epi16(a, b))
#define ADD_PRODUCTS_256(totals, a, b) _mm256_add_epi32(totals, _mm256_madd_epi16(a, b))

MULTIPLY(
    sse2, SSE2, __m128i, 4, _mm_loadu_si128, _mm_storeu_si128, _mm_set1_epi32, _mm_add_epi32, ADD_PRODUCTS_128
)
MULTIPLY(
    avx2, AVX2, __m256i, 8, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi32, _mm256_add_epi32,
    ADD_PRODUCTS_256
)
MULTIPLY(
    avx512, AVX512, __m512i, 16, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_set1_epi32, _mm512_add_epi32,
    _mm512_dpwssd_epi32
)

/* As many columns at once as there are registers for. */
__attribute__((target(SSE2))) static void multiply_sse2(
    int32_t *restrict sums, int columns, const int16_t *restrict rows, int64_t row_stride,
    const int16_t *restrict pairs, int64_t pair_stride, int64_t count
) {
    for (int i = 0; i < columns; i += 32) {
        columns_sse2(sums + i, 8, 1, rows + 2 * i, row_stride, pairs, pair_stride, count);
    }
}

__attribute__((target(AVX2))) static void multiply_avx2(
    int32_t *restrict sums, int columns, const int16_t *restrict rows, int64_t row_stride,
    const int16_t *restrict pairs, int64_t pair_stride, int64_t count
) {
    for (int i = 0; i < columns; i += 64) {
        columns_avx2(sums + i, 8, 1, rows + 2 * i, row_stride, pairs, pair_stride, count);
    }
}

__attribute__((target(AVX512))) static void multiply_avx512(
    int32_t *restrict sums, int columns, const int16_t *restrict rows, int64_t row_stride,
    const int16_t *restrict pairs, int64_t pair_stride, int64_t count
) {
    if (columns == 192) columns_avx512(sums, 12, 1, rows, row_stride, pairs, pair_stride, count);
    else columns_avx512(sums, 4, 2, rows, row_stride, pairs, pair_stride, count);
}
#endif

ALWAYS int16_t *inputs_of(const Recurrent *r, int64_t window, int64_t t, int64_t lane, int layer) {
    return r->window_inputs + ((((window & 1) * WINDOW + t) * r->lanes + lane) * LAYERS + layer) * INPUTS;
}

ALWAYS int16_t *gates_of(const Recurrent *r, int64_t window, int64_t t, int64_t lane, int layer) {
    return r->window_gates + ((((window & 1) * WINDOW + t) * r->lanes + lane) * LAYERS + layer) * (KEPT * UNITS);
}

ALWAYS int16_t *deltas_of(const Recurrent *r, int64_t t, int64_t lane, int layer) {
    return r->window_deltas + ((t * r->lanes + lane) * LAYERS + layer) * GATES;
}

/* Two steps' slopes of the sums of a layer's gates, in pairs: the pair of steps 2 n and 2 n + 1 of each lane. */
ALWAYS int16_t *pairs_of(const Recurrent *r, int64_t n, int64_t lane, int layer) {
    return r->delta_pairs + ((layer * (WINDOW / 2) + n) * r->lanes + lane) * (2 * GATES);
}

/* Interleave two rows. */
ALWAYS void pair(int count, int16_t *restrict pairs, const int16_t *restrict first, const int16_t *restrict second) {
    for (int i = 0; i < count; i++) {
        pairs[2 * i] = first[i];
        pairs[2 * i + 1] = second[i];
    }
}

/* Units' weights of a layer by pairs of gates: of those that read the layer's own outputs, or those from below. */
ALWAYS int16_t *back_of(const Recurrent *r, int layer, int below) {
    return r->unit_back + (layer * 2 + below) * (GATES * UNITS);
}

/* Slopes of the sums of gates over a lane's window, from the newest byte to the oldest. Slopes are in 2^-14.
   Layer after layer, so that the weights that a loop reads stay in the nearest cache. */
ALWAYS void go_back(Recurrent *r, int64_t window, int64_t lane, Multiply *multiply) {
    for (int layer = LAYERS - 1; layer >= 0; layer--) {
        int32_t later[UNITS] = {0}, cell[UNITS] = {0};
        for (int64_t t = WINDOW - 1; t >= 0; t--) {
            const int16_t *gates = gates_of(r, window, t, lane, layer);
            int16_t *restrict deltas = deltas_of(r, t, lane, layer);
            const int32_t *restrict own = r->window_slopes + (t * r->lanes + lane) * OUTPUTS + layer * UNITS;
            for (int i = 0; i < UNITS; i++) {
                int32_t f = gates[FORGET * UNITS + i], o = gates[OUTPUT * UNITS + i], g = gates[CANDIDATE * UNITS + i];
                int32_t before = gates[BEFORE * UNITS + i], after = gates[AFTER * UNITS + i];
                int32_t slope = bounded(own[i] + later[i], SLOPE_MOST);
                int32_t by_output = fifteenth(fifteenth(slope * after) * fifteenth(o * (ONE - o)));
                int32_t c = bounded(cell[i] + fifteenth(slope * o), SLOPE_MOST);
                int32_t by_forget = ((c * ((before - g) >> 1)) + (HALF >> 1)) >> 14;
                by_forget = fifteenth(by_forget * fifteenth(f * (ONE - f)));
                int32_t by_candidate = fifteenth(fifteenth(c * (ONE - f)) * (ONE - fifteenth(g * g)));
                cell[i] = fifteenth(c * f);
                deltas[i] = (int16_t)bounded(by_forget, DELTA_MOST);
                deltas[UNITS + i] = (int16_t)bounded(by_output, DELTA_MOST);
                deltas[2 * UNITS + i] = (int16_t)bounded(by_candidate, DELTA_MOST);
            }
            int32_t sums[UNITS] = {0};
            multiply(sums, UNITS, back_of(r, layer, 0), 2 * UNITS, deltas, 2, GATES / 2);
            for (int i = 0; i < UNITS; i++) later[i] = (sums[i] + 2048) >> 12;
            if (t % 2 == 0) pair(GATES, pairs_of(r, t / 2, lane, layer), deltas, deltas_of(r, t + 1, lane, layer));
        }
        for (int64_t t = 0; layer && t < WINDOW; t++) {
            int32_t *below = r->window_slopes + (t * r->lanes + lane) * OUTPUTS + (layer - 1) * UNITS;
            int32_t sums[UNITS] = {0};
            multiply(sums, UNITS, back_of(r, layer, 1), 2 * UNITS, deltas_of(r, t, lane, layer), 2, GATES / 2);
            for (int i = 0; i < UNITS; i++) below[i] += (sums[i] + 2048) >> 12;
        }
    }
}

ALWAYS void forward(Recurrent *r, int64_t lane, int64_t step, int byte, Multiply *multiply) {
    int64_t t = step % WINDOW, window = step / WINDOW;
    if (t == 0 && step > 0) go_back(r, window - 1, lane, multiply);
    int16_t *restrict outputs = r->outputs + lane * OUTPUTS;
    r->window_bytes[((window & 1) * WINDOW + t) * r->lanes + lane] = (uint8_t)byte;
    for (int layer = 0; layer < LAYERS; layer++) {
        int16_t *inputs = inputs_of(r, window, t, lane, layer), *restrict gates = gates_of(r, window, t, lane, layer);
        const int16_t *row = r->row_whole + ((int64_t)layer * 256 + byte) * GATES;
        const int16_t *weights = r->unit_forward + (int64_t)layer * INPUTS * GATES;
        int32_t *restrict states = r->states + (lane * LAYERS + layer) * UNITS, sums[GATES];
        memcpy(inputs, outputs + layer * UNITS, UNITS * sizeof *inputs);
        /* The new outputs of the layer below. */
        if (layer) memcpy(inputs + UNITS, outputs, UNITS * sizeof *inputs);
        for (int i = 0; i < GATES; i++) sums[i] = row[i] * 512;
        multiply(sums, GATES, weights, 2 * GATES, inputs, 2, (layer ? INPUTS : UNITS) / 2);
        /* Loops of one thing each, which compilers make vectors of. */
        for (int i = 0; i < GATES; i++) {
            sums[i] = bounded(sums[i] >> (i < 2 * UNITS ? 13 : 12), SQUASH_MOST) + SQUASH_MOST + 1;
        }
        for (int i = 0; i < GATES; i++) sums[i] = r->squash[sums[i]];
        for (int i = 0; i < UNITS; i++) {
            int32_t f = sums[i] >> 1, o = sums[UNITS + i] >> 1, g = sums[2 * UNITS + i] - ONE;
            int32_t before = states[i], after = (before * f + (ONE - f) * g) >> 15;
            gates[FORGET * UNITS + i] = (int16_t)f;
            gates[OUTPUT * UNITS + i] = (int16_t)o;
            gates[CANDIDATE * UNITS + i] = (int16_t)g;
            gates[BEFORE * UNITS + i] = (int16_t)before;
            gates[AFTER * UNITS + i] = (int16_t)after;
            states[i] = after;
            outputs[layer * UNITS + i] = (int16_t)((after * o + (1 << 20)) >> 21);
        }
    }
}

ALWAYS int32_t logit(Recurrent *r, int64_t lane, int seen, int bit_number) {
    int32_t total = dot(r->outputs + lane * OUTPUTS, r->node_whole + (int64_t)seen * OUTPUTS, OUTPUTS);
    return r->logits[lane * 8 + bit_number] = bounded(total >> 13, LOGIT_MOST);
}

ALWAYS void learn_nodes(Recurrent *r, int64_t step, const uint8_t *symbols) {
    int64_t t = step % WINDOW;
    /* Gradients lie in the order in which nodes are met, so that few lanes need little room; numbers begin with 1. */
    int16_t numbers[256] = {0};
    int count = 0;
    for (int64_t lane = 0; lane < r->lanes; lane++) {
        const int16_t *restrict outputs = r->outputs + lane * OUTPUTS;
        int32_t *restrict slopes = r->window_slopes + (t * r->lanes + lane) * OUTPUTS;
        int32_t totals[OUTPUTS] = {0};
        for (int bit_number = 0; bit_number < 8; bit_number++) {
            int node = (256 | symbols[lane]) >> (8 - bit_number), bit = symbols[lane] >> (7 - bit_number) & 1;
            int32_t own = r->squash[r->logits[lane * 8 + bit_number] + SQUASH_MOST + 1];
            int32_t error = ((bit << 16) - own) >> 4;
            const int16_t *restrict whole = r->node_whole + (int64_t)node * OUTPUTS;
            if (numbers[node] == 0) {
                r->touched[count++] = node;
                numbers[node] = (int16_t)count;
                memset(r->node_gradient + (int64_t)(count - 1) * OUTPUTS, 0, OUTPUTS * sizeof *r->node_gradient);
            }
            int32_t *restrict gradient = r->node_gradient + (int64_t)(numbers[node] - 1) * OUTPUTS;
            for (int i = 0; i < OUTPUTS; i++) {
                totals[i] += error * whole[i];
                gradient[i] += error * outputs[i];
            }
        }
        for (int i = 0; i < OUTPUTS; i++) slopes[i] = (totals[i] + 512) >> 10;
    }
    for (int n = 0; n < count; n++) {
        int64_t at = (int64_t)r->touched[n] * OUTPUTS;
        const int32_t *gradient = r->node_gradient + (int64_t)n * OUTPUTS;
        move(OUTPUTS, r->node_weights + at, r->node_squares + at, r->node_whole + at, gradient, NODE_RATE, LEAST_NODE);
    }
}

/* Move the weights that read a task's inputs of a layer, `count` of them from number `first`. Their gradients are
   added up a chunk of places at a time, whose slopes stay in the nearest cache. */
ALWAYS void learn_inputs(Recurrent *r, int64_t window, int layer, int first, int count, Multiply *multiply) {
    int32_t gradients[TASK_INPUTS][GATES] = {{0}};
    int16_t values[CHUNK][TASK_INPUTS][2];
    int64_t places = WINDOW / 2 * r->lanes;
    for (int64_t begin = 0; begin < places; begin += CHUNK) {
        int64_t end = begin + CHUNK < places ? begin + CHUNK : places;
        for (int64_t place = begin; place < end; place++) {
            int64_t t = place / r->lanes * 2, lane = place % r->lanes;
            const int16_t *a = inputs_of(r, window, t, lane, layer), *b = inputs_of(r, window, t + 1, lane, layer);
            pair(count, values[place - begin][0], a + first, b + first);
        }
        /* Pairs of all lanes lie one after the other, as places are counted. */
        const int16_t *deltas = pairs_of(r, 0, begin, layer);
        for (int i = 0; i < count; i++) {
            multiply(gradients[i], GATES, deltas, 2 * GATES, values[0][i], 2 * TASK_INPUTS, end - begin);
        }
    }
    int64_t at = ((int64_t)layer * INPUTS + first) * GATES;
    int16_t *whole = r->unit_whole + at;
    move(count * GATES, r->unit_weights + at, r->unit_squares + at, whole, gradients[0], RATE, LEAST_UNIT);
    for (int i = 0; i < count; i += 2) {
        pair(GATES, r->unit_forward + at + i * GATES, whole + i * GATES, whole + (i + 1) * GATES);
    }
    int16_t *back = back_of(r, layer, first / UNITS) + 2 * (first % UNITS);
    for (int n = 0; n < GATES / 2; n++) {
        for (int i = 0; i < count; i++) {
            memcpy(back + n * 2 * UNITS + 2 * i, whole + i * GATES + 2 * n, 2 * sizeof *back);
        }
    }
}

/* Move a layer's weights of a task's bytes, those that any lane had in the window. */
ALWAYS void learn_bytes(Recurrent *r, int64_t window, int layer, int task) {
    const uint8_t *bytes = r->window_bytes + (window & 1) * WINDOW * r->lanes;
    int32_t gradients[256 / RECURRENT_TASKS][GATES];
    uint8_t found[256 / RECURRENT_TASKS] = {0};
    for (int64_t place = 0; place < WINDOW * r->lanes; place++) {
        if (bytes[place] % RECURRENT_TASKS != task) continue;
        const int16_t *restrict deltas = r->window_deltas + (place * LAYERS + layer) * GATES;
        int n = bytes[place] / RECURRENT_TASKS;
        int32_t *restrict gradient = gradients[n];
        if (!found[n]) memset(gradient, 0, sizeof gradients[n]);
        found[n] = 1;
        /* On the scale of the units' gradients. */
        for (int i = 0; i < GATES; i++) gradient[i] += deltas[i] * 512;
    }
    for (int n = 0; n < 256 / RECURRENT_TASKS; n++) {
        if (!found[n]) continue;
        int64_t at = ((int64_t)layer * 256 + n * RECURRENT_TASKS + task) * GATES;
        move(GATES, r->row_weights + at, r->row_squares + at, r->row_whole + at, gradients[n], RATE, LEAST_UNIT);
    }
}

ALWAYS void learn_units(Recurrent *r, int64_t step, int task, Multiply *multiply) {
    if (step == 0 || step % WINDOW) return;
    int64_t window = step / WINDOW - 1;
    for (int layer = 0; layer < LAYERS; layer++) {
        int count = (layer ? INPUTS : UNITS) / RECURRENT_TASKS;
        learn_inputs(r, window, layer, task * count, count, multiply);
        learn_bytes(r, window, layer, task);
    }
}

typedef struct {
    void (*forward)(Recurrent *r, int64_t lane, int64_t step, int byte);
    int32_t (*logit)(Recurrent *r, int64_t lane, int seen, int bit_number);
    void (*learn_nodes)(Recurrent *r, int64_t step, const uint8_t *symbols);
    void (*learn_units)(Recurrent *r, int64_t step, int task);
} Build;

#define BUILD(name, attributes)                                                                                \
    attributes static void forward_##name(Recurrent *r, int64_t lane, int64_t step, int byte) {                \
        forward(r, lane, step, byte, multiply_##name);                                                         \
    }                                                                                                          \
    attributes static int32_t logit_##name(Recurrent *r, int64_t lane, int seen, int bit_number) {             \
        return logit(r, lane, seen, bit_number);                                                               \
    }                                                                                                          \
    attributes static void learn_nodes_##name(Recurrent *r, int64_t step, const uint8_t *symbols) {            \
        learn_nodes(r, step, symbols);                                                                         \
    }                                                                                                          \
    attributes static void learn_units_##name(Recurrent *r, int64_t step, int task) {                          \
        learn_units(r, step, task, multiply_##name);                                                           \
    }                                                                                                          \
    static const Build build_##name = {forward_##name, logit_##name, learn_nodes_##name, learn_units_##name};

BUILD(plain, )
#ifdef X86
BUILD(sse2, __attribute__((target(SSE2))))
BUILD(avx2, __attribute__((target(AVX2))))
BUILD(avx512, __attribute__((target(AVX512))))
#endif

/* The builds that this processor can run, the fastest last; returned is their number. */
static int builds(const Build **found) {
    int count = 0;
    found[count++] = &build_plain;
#ifdef X86
    found[count++] = &build_sse2;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) {
        found[count++] = &build_avx2;
        if (
            __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512vnni")
        ) {
            found[count++] = &build_avx512;
        }
    }
#endif
    return count;
}

static const Build *used;

__attribute__((visibility("default"))) int sepzip_recurrent_use(int number) {
    const Build *found[4];
    int count = builds(found);
    __atomic_store_n(&used, found[number < 0 || number >= count ? count - 1 : number], __ATOMIC_RELAXED);
    return count;
}

static inline const Build *build(void) {
    const Build *chosen = __atomic_load_n(&used, __ATOMIC_RELAXED);
    if (chosen) return chosen;
    /* Threads that come here at once choose the same. */
    sepzip_recurrent_use(-1);
    return __atomic_load_n(&used, __ATOMIC_RELAXED);
}

void sepzip_recurrent_forward(Recurrent *r, int64_t lane, int64_t step, int byte) {
    build()->forward(r, lane, step, byte);
}

int32_t sepzip_recurrent_logit(Recurrent *r, int64_t lane, int seen, int bit_number) {
    return build()->logit(r, lane, seen, bit_number);
}

void sepzip_recurrent_learn_nodes(Recurrent *r, int64_t step, const uint8_t *symbols) {
    build()->learn_nodes(r, step, symbols);
}

void sepzip_recurrent_learn_units(Recurrent *r, int64_t step, int task) { build()->learn_units(r, step, task); }
