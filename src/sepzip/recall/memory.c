/* The memory of contexts: its meaning, and how CPUs run it.

   A step codes one byte in every lane. First every lane is predicted and coded, bit by bit, against a memory
   that stands still; then the memory learns, by sums over the lanes or by the lane that a rule names. So lanes
   and tasks may go in any order and to any thread. All is integers; shifts of negative numbers round down.

   The arrays are made in state.py, which says what they hold. */

#include "recurrent.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A build for each set of vector instructions: the same integers, faster. What is called is built with it, for
   alone it would have one build, without them. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define VECTORISED __attribute__((flatten, target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define VECTORISED
#endif

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address)
#endif

enum {
    INPUTS = 32, FIELDS = 72, ROWS = 256, CHOICE_ROWS = 6 * ROWS, SETS = 4, FINALS = 2, ERRORS = SETS + FINALS,
    MATCHES = 2, PAD = 32, VERIFIED = 32,
    CELLS = 13 * 4 * 64, CLASS_WIDTH = 72, CLASSES_MOST = 32 * CLASS_WIDTH,
    CELL_COUNT_BITS = 10, CELL_COUNT_MOST = 1023, LENGTHS = 24, KINDS = 7,
    SLOT_COUNT_MOST = 127, RECENT = 23,
    APM_CONTEXTS = 1 << 16, APM_POINTS = 33, APM_STEP = 176, APM_COUNT_MOST = 255,
    APM_MOST = APM_STEP * (APM_POINTS - 1) / 2 - 1,
    NAMES = 16, COLUMNS = 32, LANE_NUMBERS = 13 + 10 + NAMES + 8 + 2 * COLUMNS + 7, TAPS = 16, PREDICTIONS = 9,
    CONSTANT = 256, SQUASH_MOST = 3071, LEAST = 2, FREE = 65535, NONE = -1,
    RATE_FIRST = 120, RATE_LAST = 10, RATE_STEPS = 400, RATE_BYTES = 8000,
    FINAL_RATE = 14, FINAL_RATE_MOST = 30,
    LOOKS = 20000, WEIGHT_MOST = (1 << 22) - 1, FULL = (1 << 22) - 1
};

/* A lane's numbers. */
enum { WORD, WORD_1, WORD_2, LINE, LINE_BEFORE, MATCH, LENGTH = MATCH + MATCHES, ERROR = LENGTH + MATCHES,
       LINE_2, BEGINNING, GAPS,
       /* Of markup and of text in pieces: */
       LETTERS, SPOKEN, SPOKEN_1, ESCAPED, DIGITS, INSIDE, SIGNS, SIGNS_LONG, TAGGING, DEPTH, NAME,
       /* Of tables: */
       FIELD = NAME + NAMES, FIELD_START, FIELD_ABOVE, FIELD_ABOVE_END, TOKEN, TOKEN_ABOVE, SHAPE, PARAGRAPH,
       FIELD_STARTS, TOKENS = FIELD_STARTS + COLUMNS };

/* Those of x86 instructions: what is known of this one, where in it one is, and what was before. */
enum { CODE = TOKENS + COLUMNS, PART, CODE_1, CODE_2, CODE_3, OPCODES, OPERAND };

/* Fields: as in profiles.py. */
enum {
    F_WORD = 16, F_WORD_1, F_WORD_2, F_ABOVE_IN_TEXT, F_COLUMN_IN_TEXT, F_FOLLOWED_ONE, F_FOLLOWED_TWO,
    F_ABOVE, F_ABOVE_2, F_ABOVE_3, F_ABOVE_NEXT, F_ABOVE_BEFORE, F_COLUMN, F_SLOPE,
    F_EIGHT_BEFORE, F_PLACE_OF_EIGHT, F_SLOPE_OF_EIGHT, F_SAMPLE,
    F_LEFT_OF_ABOVE = F_SAMPLE + PREDICTIONS, F_RIGHT_OF_ABOVE, F_SECOND_OF_ABOVE, F_ABOVE_THAT, F_BEGINNING, F_GAPS,
    F_LETTERS = 56, F_SPOKEN, F_SPOKEN_1, F_INSIDE, F_TAG, F_TAG_OUTSIDE, F_SIGNS, F_SIGNS_LONG,
    F_FIELD_ABOVE, F_TOKEN, F_TOKEN_ABOVE, F_SHAPE, F_PARAGRAPH
};

enum { F_CODE = 48, F_PART, F_CODE_1, F_CODE_2, F_CODE_3, F_OPCODES, F_OPERAND, F_FOLLOWED_CODE };

enum { USES_TEXT = 1, USES_RECORD = 2, USES_SAMPLES = 4, USES_FLOATS = 8, USES_INSTRUCTIONS = 16,
       USES_MARKUP = 32, USES_TABLE = 64 };

/* Parts of an instruction: an opcode of one of four maps, and what may follow it. In PART are, from the lowest
   bits on, the part, how many of its bytes were seen, how many it has, and those of an immediate behind it, 4
   bits each; in CODE the opcode, ModRM and SIB, the map from bit 24 on, 2 bits, operands of 16 bits, F3, F2, and
   REX.W, R and B. WHERE and WHICH are what of them chooses. */
enum { MODRM = 4, SIB, DISPLACEMENT, IMMEDIATE, VEX, WHERE = 0xFFF, WHICH = 0x300FFFF, CODES = 4096 };

/* What the table of instructions says of an opcode: the bytes of an immediate, and the rest. */
enum {
    IMMEDIATE_BYTES = 7, IMMEDIATE_NARROWS = 8, IMMEDIATE_WIDENS = 16, HAS_MODRM = 32, IS_GROUP_3 = 64,
    IS_PREFIX = 128, IS_ESCAPE = 256, IS_VEX = 512
};

/* The order is that of Segment in native.py. */
typedef struct {
    const int16_t *stretch;
    const int32_t *squash;
    const int32_t *root;
    const int64_t *reciprocal;
    const uint32_t *multipliers;
    const uint32_t *masks;
    const int32_t *used;
    const int32_t *classes;
    const int32_t *kinds;
    const int32_t *instructions;
    uint32_t *slots;
    uint32_t *cells;
    int16_t *cell_stretch;
    uint32_t *lengths;
    uint32_t *apm;
    int32_t *weights;
    int32_t *final_weights;
    uint8_t *history;
    const int64_t *starts;
    int64_t *lane;
    uint16_t *followed_one;
    uint16_t *followed_two;
    uint16_t *followed_code;
    int32_t *matches;
    int32_t *taps;
    int32_t *tap_values;
    int32_t *predictions;

    int32_t *places;
    int32_t *checks;
    int32_t *inputs;
    int32_t *used_cells;
    int32_t *used_lengths;
    int32_t *used_points;
    int32_t *rows;
    int32_t *errors;
    int32_t *outputs;
    int32_t *match_places;
    int32_t *slot_counts;
    int32_t *cell_counts;
    int32_t *length_counts;
    int32_t *apm_counts;
    int32_t *followers;
    int32_t *touched;
    int32_t *gradient;
    int32_t *row_counts;
    int64_t *final_gradient;
    int32_t *final_counts;

    int64_t *low;
    int64_t *high;
    int64_t *code;
    int64_t *at;
    const int64_t *end;
    uint8_t *data;
    Recurrent *recurrent;

    int64_t used_count;
    int64_t lanes;
    int64_t stride;
    int64_t contexts;
    int64_t bucket_bits;
    int64_t match_size;
    int64_t record;
    int64_t columns;
    int64_t sample;
    int64_t big_endian;
    int64_t uses;
    int64_t decodes;
    int64_t touched_stride;
} Segment;

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t bounded(int64_t x, int64_t most) { return smaller(larger(x, -most), most); }
static inline int64_t within(int64_t x, int64_t least, int64_t most) { return smaller(larger(x, least), most); }

static inline uint32_t finished(uint32_t x) {
    x ^= x >> 15;
    x *= 0x85EBCA6Bu;
    x ^= x >> 13;
    x *= 0xC2B2AE35u;
    return x ^ x >> 16;
}

static inline uint32_t count_of(uint32_t slot) { return slot >> 16 & SLOT_COUNT_MOST; }

static inline const uint8_t *row_of(const Segment *s, int64_t lane) { return s->history + lane * s->stride + PAD; }

/* ---- what a lane knows before a byte ---- */

static inline int64_t byte_before(const uint8_t *row, int64_t step, int64_t back) {
    return back <= step ? row[step - back] : 0;
}

static inline int64_t sample_at(const uint8_t *row, int64_t start, int64_t sample, int64_t big_endian) {
    if (start < 0) return 0;
    if (sample == 1) return row[start];
    int64_t value = big_endian ? row[start] << 8 | row[start + 1] : row[start + 1] << 8 | row[start];
    return value >= 32768 ? value - 65536 : value;
}

/* Learn from the sample before byte `begin`, and predict the one that begins there. */
static void predict_samples(const Segment *s, int64_t lane, int64_t begin) {
    const uint8_t *row = row_of(s, lane);
    int64_t sample = s->sample, record = s->record, big = s->big_endian;
    int32_t *taps = s->taps + lane * TAPS, *values = s->tap_values + lane * TAPS;
    int32_t *predictions = s->predictions + lane * PREDICTIONS;
    int64_t *numbers = s->lane + lane * LANE_NUMBERS;
    if (begin > 0) {
        int64_t error = sample_at(row, begin - sample, sample, big) - predictions[6];
        int64_t energy = 1;
        numbers[ERROR] = (numbers[ERROR] * 7 + (error < 0 ? -error : error) * 16) >> 3;
        for (int i = 0; i < TAPS; i++) energy += (int64_t)values[i] * values[i] >> 4;
        for (int i = 0; i < TAPS; i++) {
            int64_t product = error * values[i] * 320;
            int64_t change = smaller((product < 0 ? -product : product) / energy, 30000);
            taps[i] += (int32_t)(product >= 0 ? change : -change);
        }
    }
    int64_t west = sample_at(row, begin - sample, sample, big);
    int64_t west_2 = sample_at(row, begin - 2 * sample, sample, big);
    int64_t west_3 = sample_at(row, begin - 3 * sample, sample, big);
    int64_t north = west, north_west = west_2, north_east = west, north_2 = west, north_west_2 = west;
    int64_t above = begin - record;
    if (record > 0 && above - sample >= 0) {
        north = sample_at(row, above, sample, big);
        north_west = sample_at(row, above - sample, sample, big);
        north_east = sample_at(row, above + sample, sample, big);
        north_2 = above >= record ? sample_at(row, above - record, sample, big) : north;
    }
    if (record > 0 && above - 2 * sample >= 0) north_west_2 = sample_at(row, above - 2 * sample, sample, big);
    int64_t north_east_2 = north_east;
    if (record > 0 && above >= record) north_east_2 = sample_at(row, above - record + sample, sample, big);
    int count = 0;
    int64_t back = 1;
    if (record > 0) {
        int64_t around[8] = {west, north, north_west, north_east, west_2, north_2, west_3, north_west_2};
        for (; count < 8; count++) values[count] = (int32_t)around[count];
        back = 4;
    }
    for (; count < TAPS; count++, back++) {
        values[count] = (int32_t)sample_at(row, begin - back * sample, sample, big);
    }
    int64_t total = 0;
    for (int i = 0; i < TAPS; i++) total += (int64_t)taps[i] * values[i];
    int64_t all[PREDICTIONS] = {
        west, 2 * west - west_2, north, west + north - north_west, (west + north_east) >> 1,
        north + north_east - north_east_2, total >> 16, 3 * west - 3 * west_2 + west_3, (west + north) >> 1,
    };
    int64_t least = sample == 1 ? -64 : -32768, most = sample == 1 ? 320 : 32767;
    for (int i = 0; i < PREDICTIONS; i++) predictions[i] = (int32_t)within(all[i], least, most);
}

/* What a prediction says of the byte that comes, the first byte of the sample being known or not. */
static inline int64_t key_of(const Segment *s, int64_t prediction, int64_t phase, int64_t last) {
    if (s->sample == 1) return prediction & 511;
    int64_t bits = prediction & 0xFFFF;
    if (!s->big_endian) {
        if (phase == 0) return 0x10000 | (bits & 0xFF) << 4;
        return 0x20000 | (((bits - last + 128) >> 4) & 0xFFF);
    }
    if (phase == 0) return 0x30000 | bits >> 4;
    return 0x40000 | (within(bits - (last << 8), -256, 511) + 256) >> 1;
}

static void fill_samples(const Segment *s, int64_t lane, int64_t step, int64_t position, uint32_t *fields) {
    static const int which[8] = {0, 1, 2, 3, 6, 6, 8, 5};
    int64_t phase = position % s->sample, last = fields[0];
    int one = s->sample == 1;
    if (phase == 0 || step == 0) predict_samples(s, lane, step - phase);
    const int32_t *predictions = s->predictions + lane * PREDICTIONS;
    for (int i = 0; i < 8; i++) fields[F_SAMPLE + i] = (uint32_t)key_of(s, predictions[which[i]], phase, last);
    int64_t key = fields[F_SAMPLE + 4], size = s->lane[lane * LANE_NUMBERS + ERROR] >> 3, bits = 0;
    for (; size; size >>= 1) bits++;
    fields[F_SAMPLE + 5] = (uint32_t)((key >> (one ? 1 : 3)) << 6 | bits);
    fields[F_SAMPLE + 8] = (uint32_t)((key >> (one ? 1 : 5)) << 16 | fields[F_SAMPLE] >> (one ? 2 : 6));
}

/* Where the last two bytes that followed this part of this instruction in the lane are kept. */
static inline uint16_t *followed_code(const Segment *s, int64_t lane) {
    const int64_t *numbers = s->lane + lane * LANE_NUMBERS;
    uint32_t hash = finished((uint32_t)numbers[CODE] * 0x2F0B4C47u + ((uint32_t)numbers[PART] & WHERE));
    return s->followed_code + (lane * CODES + (hash & (CODES - 1)));
}

static void fill_markup(const int64_t *numbers, uint32_t *fields) {
    int64_t depth = numbers[DEPTH];
    fields[F_LETTERS] = (uint32_t)numbers[LETTERS];
    fields[F_SPOKEN] = (uint32_t)numbers[SPOKEN];
    fields[F_SPOKEN_1] = (uint32_t)numbers[SPOKEN_1];
    fields[F_INSIDE] = (uint32_t)numbers[INSIDE];
    fields[F_TAG] = (uint32_t)numbers[NAME + (depth & (NAMES - 1))];
    fields[F_TAG_OUTSIDE] = (uint32_t)numbers[NAME + (depth - 1 & (NAMES - 1))];
}

static void fill_table(const uint8_t *row, const int64_t *numbers, int64_t step, uint32_t *fields) {
    int64_t into = step - numbers[FIELD_START], above = numbers[FIELD_ABOVE] + into, end = numbers[FIELD_ABOVE_END];
    int has_above = numbers[FIELD_ABOVE] >= 0;
    int64_t there = has_above && above < end ? row[above] : has_above && above < numbers[LINE] ? 256 : 0;
    int64_t following = has_above && above + 1 < end ? row[above + 1] : 0;
    int64_t column = smaller(numbers[FIELD], COLUMNS - 1);
    fields[F_FIELD_ABOVE] = (uint32_t)(there | following << 9 | smaller(into, 255) << 17 | column << 25);
    fields[F_TOKEN] = (uint32_t)numbers[TOKEN];
    fields[F_TOKEN_ABOVE] = (uint32_t)numbers[TOKEN_ABOVE];
    fields[F_SHAPE] = (uint32_t)numbers[SHAPE];
    fields[F_PARAGRAPH] = (uint32_t)numbers[PARAGRAPH];
}

static inline void fill_fields(const Segment *s, int64_t lane, int64_t step, uint32_t *fields) {
    const uint8_t *row = row_of(s, lane);
    const int64_t *numbers = s->lane + lane * LANE_NUMBERS;
    for (int i = 0; i < 16; i++) fields[i] = row[step - 1 - i];
    int64_t last = fields[0], position = s->starts[lane] + step;
    if (s->uses & USES_TEXT) {
        int64_t line = numbers[LINE], column = step - line, above = numbers[LINE_BEFORE] + column;
        fields[F_WORD] = (uint32_t)numbers[WORD];
        fields[F_WORD_1] = (uint32_t)numbers[WORD_1];
        fields[F_WORD_2] = (uint32_t)numbers[WORD_2];
        int64_t above_that = numbers[LINE_2] + column;
        fields[F_ABOVE_IN_TEXT] = line > 0 && above < line ? row[above] : 0;
        fields[F_COLUMN_IN_TEXT] = (uint32_t)smaller(column, 255);
        fields[F_LEFT_OF_ABOVE] = line > 0 && column > 0 && above - 1 < line ? row[above - 1] : 0;
        fields[F_RIGHT_OF_ABOVE] = line > 0 && above + 1 < line ? row[above + 1] : 0;
        fields[F_SECOND_OF_ABOVE] = line > 0 && above + 2 < line ? row[above + 2] : 0;
        fields[F_ABOVE_THAT] = above_that < numbers[LINE_BEFORE] ? row[above_that] : 0;
        fields[F_BEGINNING] = (uint32_t)numbers[BEGINNING];
        fields[F_GAPS] = (uint32_t)numbers[GAPS];
    }
    if (s->uses & (USES_MARKUP | USES_TABLE)) {
        fields[F_SIGNS] = (uint32_t)numbers[SIGNS];
        fields[F_SIGNS_LONG] = (uint32_t)numbers[SIGNS_LONG];
    }
    if (s->uses & USES_MARKUP) fill_markup(numbers, fields);
    if (s->uses & USES_TABLE) fill_table(row, numbers, step, fields);
    int64_t place = position & 7;
    fields[F_PLACE_OF_EIGHT] = (uint32_t)(place | (place ? last << 8 : 0));
    fields[F_FOLLOWED_ONE] = s->followed_one[lane * 256 + last];
    fields[F_FOLLOWED_TWO] = s->followed_two[fields[1] << 8 | last];
    if (s->uses & USES_RECORD && s->record) {
        int64_t record = s->record, above = byte_before(row, step, record);
        int64_t before = byte_before(row, step, record + 1);
        fields[F_ABOVE] = (uint32_t)above;
        fields[F_ABOVE_2] = (uint32_t)byte_before(row, step, 2 * record);
        fields[F_ABOVE_3] = (uint32_t)byte_before(row, step, 3 * record);
        fields[F_ABOVE_NEXT] = (uint32_t)byte_before(row, step, larger(record - 1, 1));
        fields[F_ABOVE_BEFORE] = (uint32_t)before;
        fields[F_COLUMN] = (uint32_t)(position % record);
        fields[F_SLOPE] = (uint32_t)(last + above - before) & 255;
    }
    if (s->uses & USES_FLOATS) {
        uint64_t first = 0, second = 0;
        fields[F_EIGHT_BEFORE] = (uint32_t)(byte_before(row, step, 8) | byte_before(row, step, 16) << 8);
        for (int i = 0; i < 8; i++) {
            first |= (uint64_t)byte_before(row, step - place, 8 - i) << 8 * i;
            second |= (uint64_t)byte_before(row, step - place, 16 - i) << 8 * i;
        }
        fields[F_SLOPE_OF_EIGHT] = (uint32_t)((2 * first - second) >> 8 * place) & 255;
    }
    if (s->uses & USES_SAMPLES) fill_samples(s, lane, step, position, fields);
    if (s->uses & USES_INSTRUCTIONS) {
        for (int i = 0; i < 7; i++) fields[F_CODE + i] = (uint32_t)numbers[CODE + i];
        fields[F_FOLLOWED_CODE] = *followed_code(s, lane);
    }
}

/* ---- matches ---- */

static inline uint8_t matched_byte(const Segment *s, int64_t at) {
    return s->history[(uint32_t)at % (uint32_t)s->lanes * s->stride + PAD + (uint32_t)at / (uint32_t)s->lanes];
}

/* Move the lane's matches past the byte before `step`, or find others. A place is step * lanes + lane. */
static inline void follow_matches(const Segment *s, int64_t lane, int64_t step) {
    static const int64_t leasts[MATCHES] = {5, 32};
    const uint8_t *row = row_of(s, lane);
    int64_t *numbers = s->lane + lane * LANE_NUMBERS, lanes = s->lanes, end = step * lanes;
    for (int kind = 0; kind < MATCHES; kind++) {
        int64_t least = leasts[kind], missed = NONE, place = NONE;
        int64_t at = numbers[MATCH + kind], length = numbers[LENGTH + kind];
        if (length > 0) {
            if (matched_byte(s, at) == row[step - 1]) {
                length = smaller(length + 1, 65535);
            } else {
                length = 0;
                missed = at + lanes;
            }
            at += lanes;
            if (at >= end) length = 0;
        }
        if (step >= least) {
            uint32_t total = 0;
            for (int64_t i = 0; i < least; i++) total += (row[step - 1 - i] + 1u) * s->multipliers[i];
            place = finished(total) & (uint32_t)(s->match_size - 1);
            if (length == 0) {
                int64_t found = (int64_t)s->matches[kind * s->match_size + place] - 1;
                if (found >= 0) {
                    int64_t before = found / lanes, most = smaller(VERIFIED, smaller(before, step)), same = 0;
                    const uint8_t *other = row_of(s, found % lanes);
                    while (same < most && other[before - 1 - same] == row[step - 1 - same]) same++;
                    if (same >= smaller(least, 16)) {
                        at = found;
                        length = same;
                    }
                }
            }
        }
        if (length == 0 && 0 <= missed && missed < end) {
            at = missed;
            length = 1;
        }
        s->match_places[lane * MATCHES + kind] = (int32_t)place;
        numbers[MATCH + kind] = at;
        numbers[LENGTH + kind] = length;
    }
}

/* One of 24 classes of a match's length. */
static inline int64_t length_class(int64_t length) {
    if (length < 16) return length;
    if (length < 32) return 16 + ((length - 16) >> 2);
    if (length < 64) return 20 + ((length - 32) >> 4);
    return length < 512 ? 22 : 23;
}

/* ---- the coder: coder/binary.py says what it writes ---- */

static inline int code_bit(Segment *s, int64_t lane, uint32_t probability, int bit) {
    uint32_t low = (uint32_t)s->low[lane], high = (uint32_t)s->high[lane], code = (uint32_t)s->code[lane];
    uint32_t width = high - low;
    uint32_t middle = low + (width >> 16) * probability + ((width & 0xFFFF) * probability >> 16);
    if (s->decodes) bit = code <= middle;
    if (bit) high = middle;
    else low = middle + 1;
    while (((low ^ high) & 0xFF000000u) == 0) {
        int64_t at = s->at[lane]++;
        if (s->decodes) code = code << 8 | (at < s->end[lane] ? s->data[at] : 0);
        else s->data[at] = (uint8_t)(high >> 24);
        low <<= 8;
        high = high << 8 | 255;
    }
    s->low[lane] = low;
    s->high[lane] = high;
    s->code[lane] = code;
    return bit;
}

/* ---- predicting ---- */

static inline int64_t squashed(const Segment *s, int64_t x) { return s->squash[x + SQUASH_MOST + 1]; }

/* One of 64 classes of a probability, equally wide when stretched: most of them are for what is nearly sure. */
static inline int32_t class_of(const Segment *s, uint32_t p) {
    return (int32_t)(within(s->stretch[p >> 4], -CLASSES_MOST, CLASSES_MOST - 1) + CLASSES_MOST) / CLASS_WIDTH;
}

static inline int64_t corrected(const uint32_t *points, int64_t low, int64_t part) {
    return ((int64_t)(points[low] >> 16) * (APM_STEP - part) + (int64_t)(points[low + 1] >> 16) * part) / APM_STEP;
}

/* Look up a bucket for each context; where it is not there, say which one would be given up for it. */
static inline void find_buckets(
    const Segment *s, int64_t lane, int nibble, const uint32_t *hashes, const uint32_t **buckets
) {
    int32_t *places = s->places + (lane * 2 + nibble) * s->contexts;
    int32_t *checks = s->checks + (lane * 2 + nibble) * s->contexts;
    int64_t bits = s->bucket_bits;
    for (int64_t i = 0; i < s->contexts; i++) {
        const uint32_t *table = s->slots + (i << (bits + 4));
        uint32_t place = hashes[i] >> (32 - bits), check = hashes[i] & 0xFFFF, other = place ^ 1;
        const uint32_t *bucket = table + ((int64_t)place << 4), *beside = table + ((int64_t)other << 4);
        check = check ? check : 1;
        buckets[i] = bucket;
        if (bucket[0] != check) {
            if (beside[0] == check) {
                place = other;
                buckets[i] = beside;
            } else {
                buckets[i] = NULL;
                if (count_of(beside[1]) < count_of(bucket[1])) place = other;
            }
        }
        places[i] = (int32_t)place;
        checks[i] = (int32_t)check;
    }
}

static inline int64_t dot(const int32_t *restrict inputs, const int32_t *restrict weights) {
    int32_t total = 0;
    for (int i = 0; i < INPUTS; i++) total += (inputs[i] * (weights[i] >> 4)) >> 8;
    return bounded(total >> 4, SQUASH_MOST);
}

/* Mix the outputs of the sets by a row of the last weights. */
static inline int64_t mixed_again(const Segment *s, const int32_t *outputs, int64_t row) {
    int64_t total = 0;
    for (int set = 0; set < SETS; set++) total += (int64_t)outputs[set] * s->final_weights[row * SETS + set];
    return bounded(total >> 16, SQUASH_MOST);
}

/* Predict and code byte number `step` of one lane. Without `active` it has none: 0, uncoded. */
static inline void predict_lane(Segment *s, int64_t lane, int64_t step, int active) {
    uint32_t fields[FIELDS], hashes[INPUTS] = {0};
    const uint32_t *buckets[INPUTS];
    int64_t contexts = s->contexts, matched[MATCHES] = {0}, lengths[MATCHES];
    uint8_t *row = s->history + lane * s->stride + PAD;
    const int64_t *numbers = s->lane + lane * LANE_NUMBERS;
    memset(fields, 0, sizeof fields);
    if (step > 0) follow_matches(s, lane, step);
    else for (int kind = 0; kind < MATCHES; kind++) s->match_places[lane * MATCHES + kind] = NONE;
    for (int kind = 0; kind < MATCHES; kind++) {
        lengths[kind] = numbers[LENGTH + kind];
        if (lengths[kind] > 0) matched[kind] = matched_byte(s, numbers[MATCH + kind]);
    }
    fill_fields(s, lane, step, fields);
    for (int64_t n = 0; n < s->used_count; n++) {
        uint32_t field = fields[s->used[n]], multiplier = s->multipliers[s->used[n]];
        const uint32_t *masks = s->masks + s->used[n] * INPUTS;
        for (int i = 0; i < INPUTS; i++) hashes[i] += (field & masks[i]) * multiplier;
    }
    for (int i = 0; i < INPUTS; i++) hashes[i] = finished(hashes[i]);
    for (int64_t i = 0; i < contexts; i++) {
        PREFETCH(s->slots + ((i << s->bucket_bits) + (hashes[i] >> (32 - s->bucket_bits)) << 4));
    }

    int64_t last = fields[0], last_2 = last | (int64_t)fields[1] << 8;
    /* What chooses weights of the fourth set. */
    int64_t choice = s->columns ? (s->starts[lane] + step) % s->columns
        : s->uses & USES_INSTRUCTIONS ? (int64_t)((fields[F_PART] & 15) << 3 | (fields[F_PART] >> 4 & 7))
        : s->kinds[last] + KINDS * (s->kinds[fields[1]] + KINDS * s->kinds[fields[2]]);
    /* And what chooses a correction, with the bits so far. */
    uint32_t correction = s->uses & USES_INSTRUCTIONS
        ? (fields[F_CODE] & WHICH) * 0x2F0B4C47u + (fields[F_PART] & WHERE) * 0x9E3779B1u
        : (uint32_t)(last_2 << 8) + 1;
    int64_t seen = 1;
    int symbol = row[step];
    for (int nibble = 0; nibble < 2; nibble++) {
        if (nibble) {
            for (int i = 0; i < INPUTS; i++) hashes[i] = finished(hashes[i] + (uint32_t)seen * 0x9E3779B1u);
            for (int64_t i = 0; i < contexts; i++) {
                PREFETCH(s->slots + ((i << s->bucket_bits) + (hashes[i] >> (32 - s->bucket_bits)) << 4));
            }
        }
        find_buckets(s, lane, nibble, hashes, buckets);
        for (int quarter = 0; quarter < 4; quarter++) {
            int bit_number = 4 * nibble + quarter, record = (int)(lane * 8 + bit_number);
            int node = (int)(seen & ((1 << quarter) - 1)) | 1 << quarter;
            int32_t *inputs = s->inputs + (int64_t)record * INPUTS;
            int32_t *used_cells = s->used_cells + record * contexts, known = 0;
            for (int64_t i = 0; i < contexts; i++) {
                uint32_t slot = buckets[i] ? buckets[i][node] : 0;
                int32_t cell = NONE, value = 0;
                if (count_of(slot)) {
                    known++;
                    cell = s->classes[slot >> 16] + class_of(s, (slot & 0xFFFF) ^ 0x8000);
                    value = s->cell_stretch[i * CELLS + cell];
                }
                used_cells[i] = cell;
                inputs[i] = value;
            }
            int64_t best = 0;
            for (int kind = 0; kind < MATCHES; kind++) {
                int32_t first = 0, second = 0, group = NONE;
                if (lengths[kind] > 0 && (matched[kind] | 256) >> (8 - bit_number) == seen) {
                    int expected = (int)(matched[kind] >> (7 - bit_number)) & 1;
                    group = (int32_t)length_class(lengths[kind]);
                    best = larger(best, group);
                    first = s->stretch[s->lengths[kind * LENGTHS + group] >> 20];
                    second = (int32_t)(32 * smaller(lengths[kind], 32));
                    if (!expected) {
                        first = -first;
                        second = -second;
                    }
                    group = 2 * group + expected;
                }
                s->used_lengths[record * MATCHES + kind] = group;
                inputs[contexts + 2 * kind] = first;
                inputs[contexts + 2 * kind + 1] = second;
            }
            inputs[contexts + 2 * MATCHES] = CONSTANT;
            if (s->recurrent) {
                inputs[contexts + 2 * MATCHES + 1] = sepzip_recurrent_logit(s->recurrent, lane, (int)seen, bit_number);
            }

            int32_t *rows = s->rows + record * SETS, *outputs = s->outputs + record * SETS;
            int32_t *errors = s->errors + record * ERRORS;
            rows[0] = (int32_t)seen;
            rows[1] = (int32_t)(ROWS + last);
            rows[2] = 2 * ROWS + (known * 8 + bit_number) * 4 + (best == 0 ? 0 : best < 16 ? 1 : 2);
            rows[3] = (int32_t)(CHOICE_ROWS + choice * 8 + bit_number);
            for (int set = 0; set < SETS; set++) {
                outputs[set] = (int32_t)dot(inputs, s->weights + (int64_t)rows[set] * INPUTS);
            }
            int64_t first_mixed = mixed_again(s, outputs, seen);
            int64_t second_mixed = mixed_again(s, outputs, ROWS + choice);
            int64_t mixed = (first_mixed + second_mixed) >> 1;
            int64_t by_mixer = squashed(s, mixed);

            int64_t point = bounded(mixed, APM_MOST) + APM_MOST + 1, low = point / APM_STEP, part = point % APM_STEP;
            int64_t first = (last << 8 | seen) * APM_POINTS;
            int64_t second = (finished(correction + (uint32_t)seen) & (APM_CONTEXTS - 1)) * APM_POINTS;
            int64_t by_first = corrected(s->apm + first, low, part);
            int64_t by_second = corrected(s->apm + APM_CONTEXTS * APM_POINTS + second, low, part);
            s->used_points[record * 2] = (int32_t)(first + low);
            s->used_points[record * 2 + 1] = (int32_t)(second + low);
            int64_t probability = within((by_mixer + by_first + by_second) / 3, LEAST, 65536 - LEAST);

            int bit = s->decodes ? 0 : symbol >> (7 - bit_number) & 1;
            if (active) bit = code_bit(s, lane, (uint32_t)probability, bit);
            for (int set = 0; set < SETS; set++) {
                errors[set] = (int32_t)((bit << 16) - squashed(s, outputs[set]));
            }
            errors[SETS] = (int32_t)((bit << 16) - squashed(s, first_mixed));
            errors[SETS + 1] = (int32_t)((bit << 16) - squashed(s, second_mixed));
            seen = 2 * seen + bit;
        }
    }
    row[step] = (uint8_t)seen;
}

/* ---- learning ---- */

static inline uint32_t counted(uint32_t cell, int64_t zeros, int64_t ones, int64_t most) {
    int64_t count = cell & CELL_COUNT_MOST, p = cell >> CELL_COUNT_BITS, times = zeros + ones;
    int64_t divisor = 2 * count + 3;
    p = (int64_t)((uint64_t)(p * divisor + 2 * ones * FULL) / (uint64_t)(divisor + 2 * times));
    return (uint32_t)(p << CELL_COUNT_BITS | smaller(count + times, most));
}

static inline uint32_t counted_slot(const Segment *s, uint32_t slot, int64_t zeros, int64_t ones) {
    int64_t p = (slot & 0xFFFF) ^ 0x8000, count = count_of(slot), divisor = 2 * count + 1, times = zeros + ones;
    /* Of bits that were seen at once the more frequent is the newer, of as many ones as zeros the 0. */
    uint32_t recent = slot >> RECENT << 1 | (ones > 0);
    if (times > 1) recent = ones == 0 ? 0 : zeros == 0 ? 3 : ones > zeros ? 1 : 2;
    p = smaller((p * divisor + 2 * ones * 65535) * s->reciprocal[divisor + 2 * times] >> 32, 65535);
    return (recent & 3) << RECENT | (uint32_t)(smaller(count + times, SLOT_COUNT_MOST) << 16 | (p ^ 0x8000));
}

static inline int symbol_at(const Segment *s, int64_t lane, int64_t step) { return row_of(s, lane)[step]; }

/* Count what followed in the context's buckets. A lane's nibbles want a bucket each: number 2 * lane + nibble. */
static void learn_slots(Segment *s, int64_t context, int64_t step) {
    uint32_t *table = s->slots + (context << (s->bucket_bits + 4));
    int32_t *counts = s->slot_counts + context * s->lanes * 32;
    const int32_t *places = s->places + context, *checks = s->checks + context;
    int64_t numbers = 2 * s->lanes;
    for (int64_t number = 0; number < numbers; number++) {
        uint32_t *bucket = table + ((int64_t)places[number * s->contexts] << 4);
        uint32_t head = bucket[0], check = (uint32_t)checks[number * s->contexts];
        if (head >> 16 == 0) {
            /* The smallest number that wants the bucket has it. */
            if (head != check) memset(bucket, 0, 64);
            bucket[0] = (uint32_t)(FREE - number) << 16 | check;
        } else if ((head & 0xFFFF) == check) {
            /* Marks that the owner is not alone in it. */
            counts[(FREE - (head >> 16)) * 16] = 1;
        }
    }
    for (int64_t number = 0; number < numbers; number++) {
        uint32_t *bucket = table + ((int64_t)places[number * s->contexts] << 4), head = bucket[0];
        if ((head & 0xFFFF) != (uint32_t)checks[number * s->contexts]) continue;
        int64_t owner = FREE - (head >> 16);
        int symbol = symbol_at(s, number >> 1, step), value = number & 1 ? symbol & 15 : symbol >> 4, node = 1;
        if (owner == number && counts[owner * 16] == 0) {
            bucket[0] = head & 0xFFFF;
            for (int i = 3; i >= 0; i--) {
                int bit = value >> i & 1;
                bucket[node] = counted_slot(s, bucket[node], 1 - bit, bit);
                node = 2 * node + bit;
            }
        } else {
            for (int i = 3; i >= 0; i--) {
                int bit = value >> i & 1;
                counts[owner * 16 + node] += bit ? 65536 : 1;
                node = 2 * node + bit;
            }
        }
    }
    for (int64_t number = 0; number < numbers; number++) {
        int32_t *mine = counts + number * 16;
        if (!mine[0]) continue;
        uint32_t *bucket = table + ((int64_t)places[number * s->contexts] << 4);
        bucket[0] &= 0xFFFF;
        for (int i = 1; i < 16; i++) {
            if (mine[i]) bucket[i] = counted_slot(s, bucket[i], mine[i] & 0xFFFF, mine[i] >> 16);
        }
        memset(mine, 0, 64);
    }
}

/* Count what followed in the cells of the context's map. */
static void learn_cells(Segment *s, int64_t context, int64_t step) {
    int32_t *counts = s->cell_counts + context * CELLS, *touched = s->touched + context * s->touched_stride;
    uint32_t *cells = s->cells + context * CELLS;
    int64_t number = 0;
    for (int64_t lane = 0; lane < s->lanes; lane++) {
        int symbol = symbol_at(s, lane, step);
        for (int bit_number = 0; bit_number < 8; bit_number++) {
            int32_t cell = s->used_cells[(lane * 8 + bit_number) * s->contexts + context];
            if (cell < 0) continue;
            if (counts[cell] == 0) touched[number++] = cell;
            counts[cell] += symbol >> (7 - bit_number) & 1 ? 65536 : 1;
        }
    }
    for (int64_t i = 0; i < number; i++) {
        int32_t cell = touched[i], times = counts[cell];
        counts[cell] = 0;
        cells[cell] = counted(cells[cell], times & 0xFFFF, times >> 16, CELL_COUNT_MOST);
        s->cell_stretch[context * CELLS + cell] = s->stretch[cells[cell] >> 20];
    }
}

/* Move the rows of a set of weights along the sum of their gradients, over the root of their number. */
static inline void learn_weights(Segment *s, int set, int64_t step) {
    int32_t *touched = s->touched + (s->contexts + set) * s->touched_stride;
    int64_t number = 0;
    /* With fewer lanes a step learns less, and what a row has to learn takes more of them. */
    int64_t steps = RATE_STEPS + RATE_BYTES / s->lanes;
    int64_t rate = RATE_LAST + (RATE_FIRST - RATE_LAST) * steps / (steps + step);
    for (int64_t record = 0; record < 8 * s->lanes; record++) {
        int32_t row = s->rows[record * SETS + set], error = s->errors[record * ERRORS + set] >> 2;
        int32_t *restrict gradient = s->gradient + (int64_t)row * INPUTS;
        const int32_t *restrict inputs = s->inputs + record * INPUTS;
        if (s->row_counts[row]++ == 0) touched[number++] = row;
        for (int i = 0; i < INPUTS; i++) gradient[i] += (inputs[i] * error) >> 10;
    }
    for (int64_t n = 0; n < number; n++) {
        int32_t row = touched[n];
        int64_t factor = rate * s->root[s->row_counts[row]];
        int32_t *restrict gradient = s->gradient + (int64_t)row * INPUTS;
        int32_t *restrict weights = s->weights + (int64_t)row * INPUTS;
        s->row_counts[row] = 0;
        for (int i = 0; i < INPUTS; i++) {
            weights[i] = (int32_t)bounded(weights[i] + (gradient[i] * factor >> 20), WEIGHT_MOST);
            gradient[i] = 0;
        }
    }
}

/* Move the last weights, and count what followed in the classes of matches' lengths. */
static void learn_last(Segment *s, int64_t step) {
    int32_t *touched = s->touched + (s->contexts + SETS) * s->touched_stride, *times = s->final_counts;
    int64_t number = 0;
    for (int64_t record = 0; record < 8 * s->lanes; record++) {
        const int32_t *rows = s->rows + record * SETS;
        for (int final = 0; final < FINALS; final++) {
            int32_t row = final ? ROWS + ((rows[3] - CHOICE_ROWS) >> 3) : rows[0];
            int64_t error = s->errors[record * ERRORS + SETS + final];
            if (times[row]++ == 0) touched[number++] = row;
            for (int set = 0; set < SETS; set++) {
                s->final_gradient[row * SETS + set] += s->outputs[record * SETS + set] * error >> 8;
            }
        }
    }
    for (int64_t n = 0; n < number; n++) {
        int32_t row = touched[n];
        int64_t factor = smaller(FINAL_RATE + s->lanes, FINAL_RATE_MOST) * s->root[times[row]];
        times[row] = 0;
        for (int set = 0; set < SETS; set++) {
            int64_t *gradient = s->final_gradient + row * SETS + set;
            int32_t *weight = s->final_weights + row * SETS + set;
            *weight = (int32_t)bounded(*weight + (*gradient * factor >> 24), WEIGHT_MOST);
            *gradient = 0;
        }
    }
    for (int kind = 0; kind < MATCHES; kind++) {
        int32_t *counts = s->length_counts + kind * LENGTHS;
        for (int64_t record = 0; record < 8 * s->lanes; record++) {
            int32_t group = s->used_lengths[record * MATCHES + kind];
            if (group < 0) continue;
            int bit = symbol_at(s, record >> 3, step) >> (7 - (record & 7)) & 1;
            counts[group >> 1] += (group & 1) == bit ? 65536 : 1;
        }
        for (int group = 0; group < LENGTHS; group++) {
            uint32_t *length = s->lengths + kind * LENGTHS + group;
            if (counts[group]) *length = counted(*length, counts[group] & 0xFFFF, counts[group] >> 16, CELL_COUNT_MOST);
            counts[group] = 0;
        }
    }
}

/* Count what followed at the points to both sides in one of the corrections. */
static void learn_correction(Segment *s, int which, int64_t step) {
    uint32_t *points = s->apm + (int64_t)which * APM_CONTEXTS * APM_POINTS;
    int32_t *counts = s->apm_counts + (int64_t)which * APM_CONTEXTS * APM_POINTS;
    int32_t *touched = s->touched + (s->contexts + SETS + 1) * s->touched_stride;
    int64_t number = 0;
    for (int64_t record = 0; record < 8 * s->lanes; record++) {
        int32_t point = s->used_points[record * 2 + which];
        int bit = symbol_at(s, record >> 3, step) >> (7 - (record & 7)) & 1;
        for (int side = 0; side < 2; side++, point++) {
            if (counts[point] == 0) touched[number++] = point;
            counts[point] += bit ? 65536 : 1;
        }
    }
    for (int64_t i = 0; i < number; i++) {
        int32_t point = touched[i], times = counts[point];
        counts[point] = 0;
        points[point] = counted(points[point], times & 0xFFFF, times >> 16, APM_COUNT_MOST);
    }
}

/* Follow x86 instructions by one byte more. Those of 32 and of 64 bits are taken alike, 40 to 4F as prefixes and
   addresses behind opcodes as 32 bits: what differs is rare, and what follows is right again soon. */
static void follow_instruction(const Segment *s, int64_t *numbers, uint32_t byte) {
    uint32_t code = (uint32_t)numbers[CODE], part = (uint32_t)numbers[PART];
    uint32_t kind = part & 15, place = part >> 4 & 15, size = part >> 8 & 15, next = part >> 12 & 15;
    uint32_t operand = (uint32_t)numbers[OPERAND];
    int ends = 0;
    if (kind < MODRM) {
        uint32_t known = (uint32_t)s->instructions[kind << 8 | byte];
        if (known & IS_PREFIX) {
            code |= known >> 16 << 26;
            if (byte >> 4 == 4) code = (code & 0x1FFFFFFF) | (byte & 8) << 26 | (byte & 4) << 28 | (byte & 1) << 31;
        } else if (known & IS_ESCAPE) {
            kind = kind == 0 ? 1 : byte == 0x38 ? 2 : 3;
        } else if (known & IS_VEX) {
            kind = VEX;
            place = 0;
            size = byte == 0x62 ? 3 : byte == 0xC4 ? 2 : 1;
            code = (code & ~255u) | byte;
        } else {
            code = (code & ~(255u | 3u << 24)) | byte | kind << 24;
            next = known & IMMEDIATE_BYTES;
            if (known & IMMEDIATE_NARROWS && code >> 26 & 1) next = 2;
            if (known & IMMEDIATE_WIDENS && code >> 29 & 1) next = 8;
            place = 0;
            size = next;
            if (known & HAS_MODRM) {
                kind = MODRM;
                size = 0;
                if (known & IS_GROUP_3) next |= 8;
            } else {
                kind = IMMEDIATE;
                next = 0;
                ends = size == 0;
            }
        }
    } else if (kind == MODRM || kind == SIB) {
        if (kind == MODRM) {
            uint32_t mod = byte >> 6, rm = byte & 7;
            code |= byte << 8;
            if (next & 8) next = (byte >> 3 & 7) < 2 ? next & 7 : 0;
            size = mod == 1 ? 1 : mod == 2 || mod == 0 && rm == 5 ? 4 : 0;
            kind = mod < 3 && rm == 4 ? SIB : DISPLACEMENT;
        } else {
            code |= byte << 16;
            if (size == 0 && (byte & 7) == 5) size = 4;
            kind = DISPLACEMENT;
        }
        place = 0;
        if (kind == DISPLACEMENT && size == 0) {
            kind = IMMEDIATE;
            size = next;
            next = 0;
            ends = size == 0;
        }
    } else if (kind == VEX) {
        if (place == 0 && size > 1) code = (code & ~(3u << 24)) | (byte & 3) << 24;
        if (++place == size) {
            uint32_t map = size == 1 ? 1 : code >> 24 & 3;
            kind = map ? map : 1;
            place = 0;
            size = 0;
        }
    } else {
        operand = operand << 8 | byte;
        if (++place == size) {
            if (kind == DISPLACEMENT && next) {
                kind = IMMEDIATE;
                size = next;
                next = 0;
                place = 0;
                operand = 0;
            } else {
                ends = 1;
            }
        }
    }
    if (ends) {
        numbers[CODE_3] = numbers[CODE_2];
        numbers[CODE_2] = numbers[CODE_1];
        numbers[CODE_1] = code;
        numbers[OPCODES] = (uint32_t)numbers[OPCODES] << 8 | ((code + 0x4D * (code >> 24 & 3)) & 255);
        code = kind = place = size = next = operand = 0;
    }
    numbers[CODE] = code;
    numbers[PART] = kind | place << 4 | size << 8 | next << 12;
    numbers[OPERAND] = operand;
}

static inline uint32_t hashed(int64_t hash, uint32_t byte) { return ((uint32_t)hash + byte + 1) * 0x2F0B4C47u; }

static inline int is_letter(uint32_t small) { return (small >= 'a' && small <= 'z') || small >= 128; }

static inline int is_digit(uint32_t byte) { return byte >= '0' && byte <= '9'; }

/* The last bytes that are neither letters nor digits; of spaces in a row one. The longer hash forgets what is
   seven back, for it has left its 32 bits. */
static void learn_signs(int64_t *numbers, uint32_t byte, uint32_t small, uint32_t last) {
    if (is_letter(small) || is_digit(byte) || (byte == ' ' && last == ' ')) return;
    numbers[SIGNS] = (uint32_t)(numbers[SIGNS] << 8 | byte);
    numbers[SIGNS_LONG] = hashed(numbers[SIGNS_LONG] << 5, byte);
}

/* Text that may stand in pieces, as PDF's does: letters alone, words that end at a space or a number of three
   digits. Digits behind a backslash are a letter. */
static void learn_pieces(int64_t *numbers, uint32_t byte, uint32_t small) {
    int64_t letters = numbers[LETTERS];
    if (byte == '(' || byte == ')') numbers[INSIDE] = byte == '(';
    if (is_digit(byte) && numbers[ESCAPED]) {
        if (numbers[ESCAPED] == 4) {
            letters <<= 8;
            numbers[ESCAPED] = 3;
        }
        numbers[ESCAPED]--;
        numbers[LETTERS] = (uint32_t)((letters & ~255) | ((letters << 3 | byte - '0') & 255));
        numbers[SPOKEN] = hashed(numbers[SPOKEN], byte);
        return;
    }
    numbers[ESCAPED] = byte == '\\' ? 4 : 0;
    numbers[DIGITS] = is_digit(byte) ? numbers[DIGITS] + 1 : 0;
    if (is_letter(small)) {
        numbers[LETTERS] = (uint32_t)(letters << 8 | small);
        numbers[SPOKEN] = hashed(numbers[SPOKEN], small);
    } else if (numbers[DIGITS] == 3 || byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t') {
        if (letters & 255) numbers[LETTERS] = (uint32_t)(letters << 8);
        if (numbers[SPOKEN]) {
            numbers[SPOKEN_1] = numbers[SPOKEN];
            numbers[SPOKEN] = 0;
        }
    }
}

/* The names of the elements that are open, in a ring. Tagging is 1 in the name of a tag that opens one, 2 behind
   it, 3 in one that closes. */
static void learn_tags(int64_t *numbers, uint32_t byte, uint32_t small, uint32_t last) {
    int64_t tagging = numbers[TAGGING];
    if (byte == '<') {
        numbers[TAGGING] = 1;
        return;
    }
    if (!tagging) return;
    if (last == '<') {
        tagging = byte == '/' ? 3 : is_letter(small);
        if (tagging == 1) numbers[NAME + (++numbers[DEPTH] & (NAMES - 1))] = 0;
    }
    if (tagging == 1) {
        int64_t *name = numbers + NAME + (numbers[DEPTH] & (NAMES - 1));
        if (byte == '>' || byte == '/' || byte == ' ' || byte == '\t' || byte == '\n') tagging = 2;
        else *name = hashed(*name, byte);
    }
    if (byte == '>') {
        if (tagging == 3 || (tagging == 2 && last == '/')) numbers[DEPTH]--;
        tagging = 0;
    }
    numbers[TAGGING] = tagging;
}

/* Fields of a line, which end at a gap: of spaces in a row the first. */
static void learn_fields(
    int64_t *numbers, int64_t step, uint32_t byte, uint32_t small, uint32_t last, uint32_t last_2
) {
    uint32_t kind = byte >= 128 ? 128 : byte != small ? 'A' : is_letter(small) ? 'a' : is_digit(byte) ? '0' : byte;
    numbers[SHAPE] = hashed(numbers[SHAPE] << 5, kind);
    if (byte != '\n' && byte != '\t' && byte != ' ' && byte != ',' && byte != ';' && byte != '|') {
        numbers[TOKEN] = hashed(numbers[TOKEN], byte);
        return;
    }
    int64_t column = smaller(numbers[FIELD], COLUMNS - 1);
    if (byte != ' ' || last != ' ') {
        numbers[TOKENS + column] = numbers[TOKEN];
        numbers[TOKEN] = 0;
        numbers[FIELD] = byte == '\n' ? 0 : numbers[FIELD] + 1;
        if (byte == '\n') numbers[PARAGRAPH] += last == '\n' || (last == '\r' && last_2 == '\n');
        column = smaller(numbers[FIELD], COLUMNS - 1);
        /* What the line above has written, if it had as many: only its first field begins where it does. */
        int64_t above = numbers[FIELD_STARTS + column], line = numbers[LINE_BEFORE];
        int64_t next = column < COLUMNS - 1 ? numbers[FIELD_STARTS + column + 1] : NONE;
        int has_above = above >= line + (column > 0);
        numbers[FIELD_ABOVE] = has_above ? above : NONE;
        numbers[FIELD_ABOVE_END] = next > line ? next : numbers[LINE];
        numbers[TOKEN_ABOVE] = has_above ? numbers[TOKENS + column] : 0;
    }
    numbers[FIELD_START] = numbers[FIELD_STARTS + column] = step + 1;
}

/* Take the step's bytes into what lanes have seen, and the places where matches are looked for. */
static void learn_lanes(Segment *s, int64_t step) {
    for (int64_t lane = 0; lane < s->lanes; lane++) {
        const uint8_t *row = row_of(s, lane);
        int64_t *numbers = s->lane + lane * LANE_NUMBERS;
        uint32_t byte = row[step], last = row[step - 1], last_2 = row[step - 2];
        uint16_t *followed = s->followed_one + lane * 256 + last;
        uint32_t small = byte >= 'A' && byte <= 'Z' ? byte + 32 : byte;
        *followed = (uint16_t)(*followed << 8 | byte);
        if ((small >= 'a' && small <= 'z') || small >= 128 || (small >= '0' && small <= '9')) {
            numbers[WORD] = ((uint32_t)numbers[WORD] + small + 1) * 0x2F0B4C47u;
        } else if (numbers[WORD]) {
            numbers[WORD_2] = numbers[WORD_1];
            numbers[WORD_1] = numbers[WORD];
            numbers[WORD] = 0;
        }
        if (byte == '\n') {
            numbers[LINE_2] = numbers[LINE_BEFORE];
            numbers[LINE_BEFORE] = numbers[LINE];
            numbers[LINE] = step + 1;
            numbers[BEGINNING] = numbers[GAPS] = 0;
        } else {
            if (step - numbers[LINE] < 4) numbers[BEGINNING] = numbers[BEGINNING] << 8 | byte;
            if ((byte == ' ' || byte == '\t' || byte == ',') && byte != last) numbers[GAPS]++;
        }
        if (s->uses & USES_INSTRUCTIONS) {
            uint16_t *code = followed_code(s, lane);
            *code = (uint16_t)(*code << 8 | byte);
            follow_instruction(s, numbers, byte);
        }
        if (s->uses & (USES_MARKUP | USES_TABLE)) learn_signs(numbers, byte, small, last);
        if (s->uses & USES_MARKUP) {
            learn_pieces(numbers, byte, small);
            learn_tags(numbers, byte, small, last);
        }
        if (s->uses & USES_TABLE) learn_fields(numbers, step, byte, small, last, last_2);
        for (int kind = 0; kind < MATCHES; kind++) {
            int32_t place = s->match_places[lane * MATCHES + kind];
            /* The largest lane's stays, which is also the largest number. */
            if (place != NONE) s->matches[kind * s->match_size + place] = (int32_t)(step * s->lanes + lane + 1);
        }
        /* As with matches, the largest lane decides: its mark is the last. */
        s->followers[last_2 << 8 | last] = (int32_t)lane;
    }
    for (int64_t lane = 0; lane < s->lanes; lane++) {
        const uint8_t *row = row_of(s, lane);
        uint32_t pair = (uint32_t)row[step - 2] << 8 | row[step - 1];
        if (s->followers[pair] == lane) s->followed_two[pair] = (uint16_t)(s->followed_two[pair] << 8 | row[step]);
    }
}

/* Let the nodes of the recurrent network learn from the step's bytes. */
static void learn_nodes(Segment *s, int64_t step) {
    uint8_t symbols[FREE];
    for (int64_t lane = 0; lane < s->lanes; lane++) symbols[lane] = row_of(s, lane)[step];
    sepzip_recurrent_learn_nodes(s->recurrent, step, symbols);
}

static void learn_task(Segment *s, int64_t task, int64_t step) {
    if (task < s->contexts) {
        learn_slots(s, task, step);
        learn_cells(s, task, step);
    } else if (task == s->contexts + SETS) {
        learn_last(s, step);
    } else if (task == s->contexts + SETS + 1) {
        learn_correction(s, 0, step);
        learn_correction(s, 1, step);
        learn_lanes(s, step);
    } else if (task == s->contexts + SETS + 2) {
        learn_nodes(s, step);
    } else {
        sepzip_recurrent_learn_units(s->recurrent, step, (int)(task - s->contexts - SETS - 3));
    }
}

/* The functions that gain by vectors, and all that they call. */
VECTORISED static void predict_lanes(Segment *s, int64_t first, int64_t end, int64_t step, int64_t active) {
    for (int64_t lane = first; lane < end; lane++) {
        if (s->recurrent) sepzip_recurrent_forward(s->recurrent, lane, step, row_of(s, lane)[step - 1]);
        predict_lane(s, lane, step, lane < active);
    }
}

VECTORISED static void learn_sets(Segment *s, int set, int64_t step) { learn_weights(s, set, step); }

/* Where threads wait for each other. They look for a moment, and then sleep: their processor may be wanted. */
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t turned;
    int waiting;
    int turn;
} Meeting;

__attribute__((visibility("default"))) void *sepzip_meeting_new(void) {
    Meeting *meeting = calloc(1, sizeof *meeting);
    if (meeting) {
        pthread_mutex_init(&meeting->mutex, NULL);
        pthread_cond_init(&meeting->turned, NULL);
    }
    return meeting;
}

__attribute__((visibility("default"))) void sepzip_meeting_free(void *address) {
    Meeting *meeting = address;
    pthread_cond_destroy(&meeting->turned);
    pthread_mutex_destroy(&meeting->mutex);
    free(meeting);
}

static void meet(Meeting *meeting, int threads) {
    if (threads == 1) return;
    pthread_mutex_lock(&meeting->mutex);
    int turn = meeting->turn;
    if (++meeting->waiting == threads) {
        meeting->waiting = 0;
        __atomic_store_n(&meeting->turn, turn + 1, __ATOMIC_RELEASE);
        pthread_cond_broadcast(&meeting->turned);
        pthread_mutex_unlock(&meeting->mutex);
        return;
    }
    pthread_mutex_unlock(&meeting->mutex);
    for (int looks = 0; looks < LOOKS; looks++) {
        if (__atomic_load_n(&meeting->turn, __ATOMIC_ACQUIRE) != turn) return;
    }
    pthread_mutex_lock(&meeting->mutex);
    while (meeting->turn == turn) pthread_cond_wait(&meeting->turned, &meeting->mutex);
    pthread_mutex_unlock(&meeting->mutex);
}

/* Run `steps` steps from step `first` as thread number `thread` of `threads` that all call this. In the last
   step `last_active` lanes have a byte. */
__attribute__((visibility("default"))) void sepzip_memory_run(
    Segment *s, int64_t first, int64_t steps, int64_t last_active, int thread, int threads, void *meeting
) {
    int64_t tasks = s->contexts + SETS + 2 + (s->recurrent ? 1 + RECURRENT_TASKS : 0);
    int64_t begin = s->lanes * thread / threads, end = s->lanes * (thread + 1) / threads;
    for (int64_t step = first; step < first + steps; step++) {
        predict_lanes(s, begin, end, step, step == first + steps - 1 ? last_active : s->lanes);
        meet(meeting, threads);
        for (int64_t task = thread; task < tasks; task += threads) {
            if (task >= s->contexts && task < s->contexts + SETS) learn_sets(s, (int)(task - s->contexts), step);
            else learn_task(s, task, step);
        }
        meet(meeting, threads);
    }
}

/* Return how far behind the first byte of x86 code a displacement begins that conversion changes, or 0: that of
   a call or jump and, in code of 64 bits, of an operand whose address is relative. */
static inline int displacement_at(const uint8_t *code, int has_before, int wide) {
    if (code[0] == 0xE8 || code[0] == 0xE9) return 1;
    if (!wide) return 0;
    if ((code[0] & 0xF0) == 0x40) {
        int opcode = code[1];
        int has_modrm = opcode < 0x40 ? (opcode & 7) < 4
            : opcode == 0x63 || (opcode & 0xF0) == 0x80 || opcode == 0xC7 || opcode >= 0xF6;
        return has_modrm && (code[2] & 0xC7) == 5 ? 3 : 0;
    }
    /* With a prefix before it, the place of the prefix is the one that counts. */
    if (!has_before || (code[-1] & 0xF0) == 0x40) return 0;
    if (code[0] == 0x0F) {
        int opcode = code[1], group = opcode & 0xF0;
        int has_modrm = group == 0x10 || group == 0x20 || group == 0x50 || (opcode & 0xEF) == 0x6F
            || opcode == 0x7E || opcode == 0xD6 || (opcode & 0xF6) == 0xB6;
        return has_modrm && (code[2] & 0xC7) == 5 ? 3 : 0;
    }
    int has_modrm = (code[0] >= 0x80 && code[0] < 0x8C) || code[0] == 0xFF;
    return has_modrm && (code[1] & 0xC7) == 5 ? 2 : 0;
}

/* Make displacements of x86 code absolute, 24 bits of them, or relative again. Before this goes on to the next
   place towards the front, or back towards the end, it looks at bytes around the displacement's 24 bits and
   changes these alone: going in the other direction finds the same bytes, and undoes it. */
__attribute__((visibility("default"))) void sepzip_convert_calls(
    uint8_t *data, int64_t size, int64_t sign, int wide
) {
    for (int64_t n = 0; n + 5 <= size; n++) {
        int64_t at = sign > 0 ? size - 5 - n : n;
        int offset = at + 7 <= size ? displacement_at(data + at, at > 0, wide)
            : data[at] == 0xE8 || data[at] == 0xE9;
        uint8_t *code = data + at + offset;
        if (offset == 0 || (code[3] != 0 && code[3] != 255)) continue;
        uint32_t target = code[0] | (uint32_t)code[1] << 8 | (uint32_t)code[2] << 16;
        target += (uint32_t)(sign * (at + offset - 1));
        code[0] = (uint8_t)target;
        code[1] = (uint8_t)(target >> 8);
        code[2] = (uint8_t)(target >> 16);
    }
}

/* Count the differences of bytes at each distance up to `most` in pieces spread over the data: counts is
   [most + 1, 256]. Distance 0 counts the bytes themselves. */
__attribute__((visibility("default"))) void sepzip_count_differences(
    const uint8_t *data, int64_t size, int64_t most, int64_t pieces, int64_t piece, int32_t *counts
) {
    int64_t room = size - most - piece;
    for (int64_t distance = 0; distance <= most; distance++, counts += 256) {
        for (int64_t number = 0; number < pieces; number++) {
            int64_t start = most + room * number / pieces;
            for (int64_t i = start; i < start + piece; i++) {
                counts[(uint8_t)(data[i] - (distance ? data[i - distance] : 0))]++;
            }
        }
    }
}
