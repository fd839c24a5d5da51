/* The recurrent network of a memory of contexts: its meaning, and how CPUs run it.

   Two layers of gated units (LSTM with coupled gates) read each lane's bytes, and a weight for each unit at each
   node of a byte's tree makes of them the logit of a bit, one more input of the mixer. Nodes learn after every
   step; the units' weights after every WINDOW steps, by the slopes of that window alone, one step late.

   Products and their sums are whole numbers, which may be added in any order; they wrap modulo 2^32. A weight and
   its mean square move by single operations of IEEE float32, none of them fused. So all is the same everywhere:
   recurrent kernels on a GPU are equal to it. Shifts of negative numbers round down. */

#include "recurrent.h"

#include <string.h>

#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error "float must be computed as float: build for SSE2 or newer (-msse2 -mfpmath=sse)"
#endif

enum {
    UNITS = 64, LAYERS = 2, GATES = 3 * UNITS, INPUTS = 2 * UNITS, OUTPUTS = LAYERS * UNITS, WINDOW = 20,
    KEPT = 5, SQUASH_MOST = 3071, LOGIT_MOST = 2303, HALF = 1 << 14, ONE = 1 << 15, SLOPE_MOST = ONE - 1,
    DELTA_MOST = 8191
};

/* What is kept of a layer's step for the way back. */
enum { FORGET, OUTPUT, CANDIDATE, BEFORE, AFTER };

/* How far weights move, of units and of nodes; what is kept of a mean square; what is added to a square. */
static const float RATE = 0.004f, NODE_RATE = 0.006f, KEEP = 0.999f, LEAST_UNIT = 700000.0f, LEAST_NODE = 44000.0f;
static const float WEIGHT_MOST = 4.0f, WHOLE = 4096.0f, ROUND = 12582912.0f;

static inline int32_t bounded(int32_t x, int32_t most) { return x < -most ? -most : x > most ? most : x; }

/* x / 2^15, rounded to nearest. */
static inline int32_t fifteenth(int32_t x) { return (x + HALF) >> 15; }

/* The whole number next to x, |x| < 2^22, of two the even one. */
static inline int32_t rounded(float x) {
    union { float number; int32_t bits; } sum = {x + ROUND};
    return sum.bits - 0x4B400000;
}

/* 1 / sqrt(x): a guess from the bits and a Newton step, right to 0.2 %. */
static inline float inverse_root(float x) {
    union { float number; int32_t bits; } guess = {x};
    guess.bits = 0x5F3759DF - (guess.bits >> 1);
    float half = 0.5f * x, y = guess.number;
    float correction = 1.5f - half * y * y;
    return y * correction;
}

/* Move weights along their gradient by its size beside what is usual, and round them. */
static inline void move(
    int count, float *restrict weights, float *restrict squares, int16_t *restrict whole,
    const int32_t *restrict gradient, float rate, float least
) {
    for (int i = 0; i < count; i++) {
        float g = (float)gradient[i];
        float seen = g * g + least;
        float square = squares[i] * KEEP + seen * (1.0f - KEEP);
        float change = g * rate;
        float weight = weights[i] + change * inverse_root(square);
        weight = weight < -WEIGHT_MOST ? -WEIGHT_MOST : weight > WEIGHT_MOST ? WEIGHT_MOST : weight;
        squares[i] = square;
        weights[i] = weight;
        whole[i] = (int16_t)rounded(weight * WHOLE);
    }
}

static inline int32_t dot(const int16_t *restrict a, const int16_t *restrict b, int count) {
    int32_t total = 0;
    for (int i = 0; i < count; i++) total += (int32_t)a[i] * b[i];
    return total;
}

static inline int16_t *inputs_of(const Recurrent *r, int64_t window, int64_t t, int64_t lane, int layer) {
    return r->window_inputs + ((((window & 1) * WINDOW + t) * r->lanes + lane) * LAYERS + layer) * INPUTS;
}

static inline int16_t *gates_of(const Recurrent *r, int64_t t, int64_t lane, int layer) {
    return r->window_gates + ((t * r->lanes + lane) * LAYERS + layer) * (KEPT * UNITS);
}

static inline int16_t *deltas_of(const Recurrent *r, int64_t t, int64_t lane, int layer) {
    return r->window_deltas + ((t * r->lanes + lane) * LAYERS + layer) * GATES;
}

/* Slopes of the sums of gates over a lane's last window, from the newest byte to the oldest. Slopes are in 2^-14. */
static inline void go_back(Recurrent *r, int64_t lane) {
    int32_t by_layer[LAYERS][UNITS] = {{0}}, by_cell[LAYERS][UNITS] = {{0}};
    for (int64_t t = WINDOW - 1; t >= 0; t--) {
        int32_t *slopes = r->window_slopes + (t * r->lanes + lane) * OUTPUTS;
        for (int layer = LAYERS - 1; layer >= 0; layer--) {
            const int16_t *gates = gates_of(r, t, lane, layer);
            int16_t *restrict deltas = deltas_of(r, t, lane, layer);
            int32_t *restrict later = by_layer[layer], *restrict cell = by_cell[layer];
            const int32_t *restrict own = slopes + layer * UNITS;
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
            const int16_t *weights = r->unit_whole + (int64_t)layer * INPUTS * GATES;
            for (int i = 0; i < UNITS; i++) later[i] = (dot(weights + i * GATES, deltas, GATES) + 2048) >> 12;
            if (layer) {
                int32_t *below = slopes + (layer - 1) * UNITS;
                weights += UNITS * GATES;
                for (int i = 0; i < UNITS; i++) below[i] += (dot(weights + i * GATES, deltas, GATES) + 2048) >> 12;
            }
        }
    }
}

VECTORISED void sepzip_recurrent_forward(
    Recurrent *r, int64_t first, int64_t end, int64_t step, const uint8_t *bytes
) {
    int64_t t = step % WINDOW, window = step / WINDOW;
    for (int64_t lane = first; lane < end; lane++) {
        if (t == 0 && step > 0) go_back(r, lane);
        int byte = bytes[lane - first];
        int16_t *outputs = r->outputs + lane * OUTPUTS;
        r->window_bytes[((window & 1) * WINDOW + t) * r->lanes + lane] = (uint8_t)byte;
        for (int layer = 0; layer < LAYERS; layer++) {
            int16_t *inputs = inputs_of(r, window, t, lane, layer), *gates = gates_of(r, t, lane, layer);
            const int16_t *row = r->row_whole + ((int64_t)layer * 256 + byte) * GATES;
            const int16_t *weights = r->unit_turned + (int64_t)layer * GATES * INPUTS;
            int32_t *states = r->states + (lane * LAYERS + layer) * UNITS, sums[GATES];
            memcpy(inputs, outputs + layer * UNITS, UNITS * sizeof *inputs);
            /* The new outputs of the layer below. */
            if (layer) memcpy(inputs + UNITS, outputs, UNITS * sizeof *inputs);
            for (int i = 0; i < GATES; i++) {
                sums[i] = row[i] * 512 + dot(inputs, weights + i * INPUTS, layer ? INPUTS : UNITS);
            }
            for (int i = 0; i < UNITS; i++) {
                int32_t f = r->squash[bounded(sums[i] >> 13, SQUASH_MOST) + SQUASH_MOST + 1] >> 1;
                int32_t o = r->squash[bounded(sums[UNITS + i] >> 13, SQUASH_MOST) + SQUASH_MOST + 1] >> 1;
                int32_t g = r->squash[bounded(sums[2 * UNITS + i] >> 12, SQUASH_MOST) + SQUASH_MOST + 1] - ONE;
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
}

VECTORISED int32_t sepzip_recurrent_logit(Recurrent *r, int64_t lane, int seen, int bit_number) {
    int32_t total = dot(r->outputs + lane * OUTPUTS, r->node_whole + (int64_t)seen * OUTPUTS, OUTPUTS);
    return r->logits[lane * 8 + bit_number] = bounded(total >> 13, LOGIT_MOST);
}

VECTORISED void sepzip_recurrent_learn_nodes(Recurrent *r, int64_t step, const uint8_t *symbols) {
    int64_t t = step % WINDOW;
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
            int32_t *restrict gradient = r->node_gradient + (int64_t)node * (OUTPUTS + 1);
            if (gradient[OUTPUTS]++ == 0) r->touched[count++] = node;
            for (int i = 0; i < OUTPUTS; i++) {
                totals[i] += error * whole[i];
                gradient[i] += error * outputs[i];
            }
        }
        for (int i = 0; i < OUTPUTS; i++) slopes[i] = (totals[i] + 512) >> 10;
    }
    for (int n = 0; n < count; n++) {
        int64_t node = r->touched[n], at = node * OUTPUTS;
        int32_t *gradient = r->node_gradient + node * (OUTPUTS + 1);
        move(OUTPUTS, r->node_weights + at, r->node_squares + at, r->node_whole + at, gradient, NODE_RATE, LEAST_NODE);
        memset(gradient, 0, (OUTPUTS + 1) * sizeof *gradient);
    }
}

/* Move the weights that read unit number `input` of a layer's inputs. */
static inline void learn_input(Recurrent *r, int64_t window, int layer, int input) {
    int32_t gradient[GATES] = {0};
    for (int64_t t = 0; t < WINDOW; t++) {
        for (int64_t lane = 0; lane < r->lanes; lane++) {
            int32_t value = inputs_of(r, window, t, lane, layer)[input];
            const int16_t *restrict deltas = deltas_of(r, t, lane, layer);
            for (int i = 0; i < GATES; i++) gradient[i] += value * deltas[i];
        }
    }
    int64_t at = ((int64_t)layer * INPUTS + input) * GATES;
    int16_t *whole = r->unit_whole + at, *turned = r->unit_turned + (int64_t)layer * GATES * INPUTS + input;
    move(GATES, r->unit_weights + at, r->unit_squares + at, whole, gradient, RATE, LEAST_UNIT);
    for (int i = 0; i < GATES; i++) turned[i * INPUTS] = whole[i];
}

/* Move a layer's weights of a byte, if any lane had it in the window. */
static inline void learn_byte(Recurrent *r, int64_t window, int layer, int byte) {
    const uint8_t *bytes = r->window_bytes + (window & 1) * WINDOW * r->lanes;
    int32_t gradient[GATES] = {0};
    int found = 0;
    for (int64_t place = 0; place < WINDOW * r->lanes; place++) {
        if (bytes[place] != byte) continue;
        const int16_t *restrict deltas = r->window_deltas + (place * LAYERS + layer) * GATES;
        found = 1;
        /* On the scale of the units' gradients. */
        for (int i = 0; i < GATES; i++) gradient[i] += deltas[i] * 512;
    }
    if (!found) return;
    int64_t at = ((int64_t)layer * 256 + byte) * GATES;
    move(GATES, r->row_weights + at, r->row_squares + at, r->row_whole + at, gradient, RATE, LEAST_UNIT);
}

VECTORISED void sepzip_recurrent_learn_units(Recurrent *r, int64_t step, int task) {
    if (step == 0 || step % WINDOW) return;
    int64_t window = step / WINDOW - 1;
    for (int layer = 0; layer < LAYERS; layer++) {
        int inputs = layer ? INPUTS : UNITS;
        for (int input = task; input < inputs; input += RECURRENT_TASKS) learn_input(r, window, layer, input);
        for (int byte = task; byte < 256; byte += RECURRENT_TASKS) learn_byte(r, window, layer, byte);
    }
}
