/* The recurrent network of a memory of contexts (recurrent.c), as memory.c calls it. */

#ifndef SEPZIP_RECURRENT_H
#define SEPZIP_RECURRENT_H

#include <stdint.h>

/* The order is that of the fields in native.py; recurrent.py says what the arrays hold. */
typedef struct {
    float *row_weights;
    float *row_squares;
    int16_t *row_whole;
    float *unit_weights;
    float *unit_squares;
    int16_t *unit_whole;
    float *node_weights;
    float *node_squares;
    int16_t *node_whole;
    int16_t *outputs;
    int32_t *states;
    uint8_t *window_bytes;
    int16_t *window_inputs;
    int16_t *window_gates;
    int32_t *window_slopes;
    int16_t *window_deltas;

    int16_t *unit_forward;
    int16_t *unit_back;
    int16_t *delta_pairs;
    int32_t *logits;
    int32_t *node_gradient;
    int32_t *touched;
    const int32_t *squash;
    int64_t lanes;
} Recurrent;

enum { RECURRENT_TASKS = 8 };

/* Before byte number `step` of a lane: take the byte before into its units. */
void sepzip_recurrent_forward(Recurrent *r, int64_t lane, int64_t step, int byte);

/* The logit of a 1 after the bits `seen` of a lane's byte, in 256ths. */
int32_t sepzip_recurrent_logit(Recurrent *r, int64_t lane, int seen, int bit_number);

/* Learn from the byte that each lane had in a step: symbols[lane]. */
void sepzip_recurrent_learn_nodes(Recurrent *r, int64_t step, const uint8_t *symbols);

/* Task number `task` of RECURRENT_TASKS of learning the units' weights after a step. */
void sepzip_recurrent_learn_units(Recurrent *r, int64_t step, int task);

/* Use build number `number`, 0 being plain C, of those for this processor, or the fastest if there is none of this
   number. Returns how many there are. */
int sepzip_recurrent_use(int number);

#endif
