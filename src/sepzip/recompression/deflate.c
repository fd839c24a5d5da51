/* Deflate (RFC 1951), both ways: reading any stream, and writing the very stream that zlib or gzip would.

   What a writer chooses is free, so two writers give different bytes for the same content. Here the choices are
   those of zlib 1.2 and 1.3 as they were observed: which matches are looked for and taken, where blocks end, how
   codes are built and runs of lengths are written. All is integers, the same on every machine. A decoder packs
   with this code what an encoder unpacked, so its choices are part of the format of files. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

enum {
    END = 256, LITERAL_CODES = 286, DISTANCE_CODES = 30, RUN_CODES = 19, MOST_BITS = 15, MOST_RUN_BITS = 7,
    LEAST_MATCH = 3, MOST_MATCH = 258, LOOKAHEAD = MOST_MATCH + LEAST_MATCH + 1, FAR = 4096,
    HEAP = 2 * LITERAL_CODES + 1, FAST_BITS = 10, NONE = 0
};

enum { STORED, FIXED, DYNAMIC };
enum { DEFAULT, FILTERED, HUFFMAN_ONLY, RUNS_ONLY, FIXED_CODES, GZIP };
enum { DONE, TRUNCATED, INVALID, TOO_LARGE };
enum { SAME, DIFFERS, IMPOSSIBLE, NO_MEMORY };

static const uint16_t length_base[29] = {
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
};
static const uint8_t length_extra[29] = {
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
};
static const uint16_t distance_base[DISTANCE_CODES] = {
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769,
    1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
};
static const uint8_t distance_extra[DISTANCE_CODES] = {
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
};
static const uint8_t run_extra[RUN_CODES] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 7};
static const uint8_t run_order[RUN_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int fixed_length(int symbol) { return symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8; }

static uint32_t reversed(uint32_t code, int length) {
    uint32_t result = 0;
    for (; length > 0; length--, code >>= 1) result = result << 1 | (code & 1);
    return result;
}

/* ---- reading ---- */

typedef struct {
    const uint8_t *data;
    int64_t size;
    int64_t at;
    uint64_t bits;
    int count;
    /* Bits beyond the end that were read as zeros. */
    int64_t beyond;
} Reader;

static inline void refill(Reader *r) {
    while (r->count <= 48) {
        if (r->at < r->size) r->bits |= (uint64_t)r->data[r->at++] << r->count;
        else r->beyond += 8;
        r->count += 8;
    }
}

static inline uint32_t take(Reader *r, int count) {
    uint32_t value = (uint32_t)(r->bits & ((1u << count) - 1));
    r->bits >>= count;
    r->count -= count;
    return value;
}

/* Whether bits were used that the data does not have. */
static inline int ran_out(const Reader *r) { return r->beyond > r->count; }

typedef struct {
    /* By the next FAST_BITS bits: symbol << 4 | length, 0 where the code is longer or there is none. */
    uint16_t fast[1 << FAST_BITS];
    uint16_t counts[MOST_BITS + 1];
    uint16_t symbols[LITERAL_CODES + 2];
} Decoder;

/* Make the decoder of a canonical code. An incomplete one is taken only if it is a single code of one bit, or
   none where that is allowed. */
static int make_decoder(Decoder *d, const uint8_t *lengths, int number, int may_be_single, int may_be_empty) {
    uint16_t starts[MOST_BITS + 2], codes[MOST_BITS + 2];
    int left = 1, most = 0;
    memset(d->counts, 0, sizeof d->counts);
    for (int i = 0; i < number; i++) d->counts[lengths[i]]++;
    d->counts[0] = 0;
    starts[1] = codes[1] = 0;
    for (int length = 1; length <= MOST_BITS; length++) {
        left = left * 2 - d->counts[length];
        if (left < 0) return 0;
        if (d->counts[length]) most = length;
        starts[length + 1] = (uint16_t)(starts[length] + d->counts[length]);
        codes[length + 1] = (uint16_t)((codes[length] + d->counts[length]) << 1);
    }
    if (left > 0 && !(most == 0 ? may_be_empty : most == 1 && may_be_single)) return 0;
    memset(d->fast, 0, sizeof d->fast);
    for (int i = 0; i < number; i++) {
        int length = lengths[i];
        if (!length) continue;
        d->symbols[starts[length]++] = (uint16_t)i;
        uint32_t code = reversed(codes[length]++, length);
        if (length > FAST_BITS) continue;
        for (; code < 1u << FAST_BITS; code += 1u << length) d->fast[code] = (uint16_t)(i << 4 | length);
    }
    return 1;
}

/* Return the next symbol, -1 if no code is there. */
static inline int next_symbol(Reader *r, const Decoder *d) {
    uint32_t entry = d->fast[r->bits & ((1 << FAST_BITS) - 1)];
    if (entry) {
        r->bits >>= entry & 15;
        r->count -= entry & 15;
        return (int)(entry >> 4);
    }
    int code = 0, first = 0, start = 0;
    for (int length = 1; length <= MOST_BITS; length++) {
        code |= (int)(r->bits >> (length - 1) & 1);
        int number = d->counts[length];
        if (code - first < number) {
            r->bits >>= length;
            r->count -= length;
            return d->symbols[start + code - first];
        }
        start += number;
        first = (first + number) << 1;
        code <<= 1;
    }
    return -1;
}

static Decoder fixed_literals, fixed_distances;

/* Made when the library is loaded: a search tries a fixed block at one place in some thousand. */
__attribute__((constructor)) static void make_fixed(void) {
    uint8_t lengths[288];
    for (int i = 0; i < 288; i++) lengths[i] = (uint8_t)fixed_length(i);
    make_decoder(&fixed_literals, lengths, 288, 0, 0);
    memset(lengths, 5, 32);
    make_decoder(&fixed_distances, lengths, 32, 0, 0);
}

/* Make the decoders of a block with codes of its own. */
static int read_codes(Reader *r, Decoder *literals, Decoder *distances) {
    uint8_t lengths[LITERAL_CODES + DISTANCE_CODES + 4];
    Decoder runs;
    refill(r);
    int literal_count = (int)take(r, 5) + 257, distance_count = (int)take(r, 5) + 1, run_count = (int)take(r, 4) + 4;
    if (literal_count > LITERAL_CODES || distance_count > DISTANCE_CODES) return 0;
    memset(lengths, 0, RUN_CODES);
    for (int i = 0; i < run_count; i++) {
        refill(r);
        lengths[run_order[i]] = (uint8_t)take(r, 3);
    }
    if (!make_decoder(&runs, lengths, RUN_CODES, 0, 0)) return 0;
    int total = literal_count + distance_count;
    for (int i = 0; i < total;) {
        refill(r);
        int symbol = next_symbol(r, &runs), times = 1;
        if (symbol < 0 || ran_out(r)) return 0;
        uint8_t value = (uint8_t)symbol;
        if (symbol == 16) {
            if (i == 0) return 0;
            value = lengths[i - 1];
            times = 3 + (int)take(r, 2);
        } else if (symbol > 16) {
            value = 0;
            times = symbol == 17 ? 3 + (int)take(r, 3) : 11 + (int)take(r, 7);
        }
        if (times > total - i) return 0;
        while (times--) lengths[i++] = value;
    }
    return lengths[END] && make_decoder(literals, lengths, literal_count, 1, 0)
        && make_decoder(distances, lengths + literal_count, distance_count, 1, 1);
}

/* What reading a stream found out. The order is that of Inflated in native.py. */
typedef struct {
    /* Bytes of the stream, or those that were looked at where it is none. */
    int64_t used;
    int64_t raw;
    /* Symbols that were kept, from the start of the stream to the first stored block at most. */
    int64_t kept;
    /* Blocks with codes of their own. */
    int64_t dynamic;
    /* The most symbols of a block but the last, the end symbol not counted, and those of the last. */
    int64_t most_symbols;
    int64_t last_symbols;
} Inflated;

static int read_stream(
    Reader *r, uint8_t *raw, int64_t capacity, uint32_t *symbols, int64_t most_kept, Inflated *report
) {
    Decoder own_literals, own_distances;
    int64_t written = 0;
    int last = 0;
    while (!last) {
        refill(r);
        last = (int)take(r, 1);
        int kind = (int)take(r, 2);
        if (ran_out(r)) return TRUNCATED;
        int64_t number = 0;
        if (kind == STORED) {
            most_kept = report->kept;
            take(r, r->count & 7);
            refill(r);
            uint32_t length = take(r, 16), inverse = take(r, 16);
            if (ran_out(r)) return TRUNCATED;
            if ((length ^ 0xFFFF) != inverse) return INVALID;
            /* Whole bytes that were read ahead are given back. */
            r->at -= (r->count - r->beyond) / 8;
            r->bits = 0;
            r->count = 0;
            r->beyond = 0;
            if (length > r->size - r->at) return TRUNCATED;
            if (length > capacity - written) return TOO_LARGE;
            if (raw) memcpy(raw + written, r->data + r->at, length);
            r->at += length;
            written += length;
        } else {
            if (kind > DYNAMIC || (kind == DYNAMIC && !read_codes(r, &own_literals, &own_distances)))
                return ran_out(r) ? TRUNCATED : INVALID;
            const Decoder *literals = kind == FIXED ? &fixed_literals : &own_literals;
            const Decoder *distances = kind == FIXED ? &fixed_distances : &own_distances;
            for (;; number++) {
                refill(r);
                int symbol = next_symbol(r, literals);
                if (symbol < 0) return INVALID;
                if (symbol == END) break;
                if (symbol < END) {
                    if (written >= capacity) return TOO_LARGE;
                    if (raw) raw[written] = (uint8_t)symbol;
                    written++;
                    if (report->kept < most_kept) symbols[report->kept++] = (uint32_t)symbol;
                    if (ran_out(r)) return TRUNCATED;
                    continue;
                }
                symbol -= END + 1;
                if (symbol >= 29) return INVALID;
                int64_t length = length_base[symbol] + take(r, length_extra[symbol]);
                int code = next_symbol(r, distances);
                if (code < 0 || code >= DISTANCE_CODES) return INVALID;
                int64_t distance = distance_base[code] + take(r, distance_extra[code]);
                if (ran_out(r)) return TRUNCATED;
                if (distance > written) return INVALID;
                if (length > capacity - written) return TOO_LARGE;
                if (raw) {
                    for (int64_t i = 0; i < length; i++) raw[written + i] = raw[written + i - distance];
                }
                written += length;
                if (report->kept < most_kept) symbols[report->kept++] = (uint32_t)(length << 16 | distance);
            }
        }
        if (ran_out(r)) return TRUNCATED;
        report->dynamic += kind == DYNAMIC;
        report->last_symbols = number;
        if (!last) report->most_symbols = larger(report->most_symbols, number);
        report->raw = written;
    }
    return DONE;
}

/* Read the deflate stream at the start of data. Its content, `capacity` bytes at most, goes to raw if there is
   one; its first symbols go to symbols, a byte or length << 16 | distance. */
PUBLIC int sepzip_inflate(
    const uint8_t *data, int64_t size, uint8_t *raw, int64_t capacity, uint32_t *symbols, int64_t most_kept,
    Inflated *report
) {
    Reader reader = {data, size, 0, 0, 0, 0};
    memset(report, 0, sizeof *report);
    int status = read_stream(&reader, raw, capacity, symbols, most_kept, report);
    report->used = reader.at - (reader.count - reader.beyond) / 8;
    return status;
}

/* ---- finding ---- */

/* So many places are looked at together: in nearly all data nothing begins at any of them. */
#define PLACES 64

/* Return whether at one of PLACES places the first two bytes are those of a file of these kinds. */
static int may_begin(const uint8_t *data) {
    uint8_t any = 0;
    for (int i = 0; i < PLACES; i++) {
        uint8_t one = data[i], two = data[i + 1];
        any |= ((one == 0x1F) & (two == 0x8B)) | ((one == 'P') & (two == 'K')) | ((one == 0x89) & (two == 'P')) |
               ((one == 'G') & (two == 'I'));
    }
    return any;
}

/* Return the next place from `start` where a file of one of these kinds may begin: gzip, zip's entry, PNG, GIF; or
   the size. */
PUBLIC int64_t sepzip_find_signature(const uint8_t *data, int64_t size, int64_t start) {
    for (int64_t at = start; at + 18 <= size;) {
        int64_t stop = size - 17;
        if (stop - at > PLACES) {
            stop = at + PLACES;
            if (!may_begin(data + at)) at = stop;
        }
        for (; at < stop; at++) {
            const uint8_t *here = data + at;
            switch (here[0]) {
            case 0x1F: if (here[1] == 0x8B && here[2] == 8) return at; break;
            case 'P': if (!memcmp(here, "PK\3\4", 4)) return at; break;
            case 0x89: if (!memcmp(here, "\x89PNG\r\n\x1A\n", 8)) return at; break;
            case 'G': if (!memcmp(here, "GIF87a", 6) || !memcmp(here, "GIF89a", 6)) return at; break;
            }
        }
    }
    return size;
}

/* Return whether two bytes are the header of a zlib stream: deflate, no dictionary, and a multiple of 31. */
static inline int is_zlib(uint8_t method, uint8_t check) {
    /* 31 * 31711 is 1 modulo 2^16, so that a multiple of 31 becomes its 31st part, and no other number so small. */
    uint16_t part = (uint16_t)((uint16_t)(method << 8 | check) * 31711u);
    return ((method & 0x8F) == 8) & !(check & 0x20) & (part <= 0xFFFF / 31);
}

static int may_begin_zlib(const uint8_t *data) {
    uint16_t any = 0;
    for (int i = 0; i < PLACES; i++) any |= is_zlib(data[i], data[i + 1]);
    return any;
}

/* Return the next place from `start` and before `end` where a zlib header is followed by a whole deflate stream
   of `least` bytes or more and `capacity` raw bytes or fewer; or the size. What was looked at in vain is taken off
   the budget, and without any left nothing is found. */
PUBLIC int64_t sepzip_find_zlib(
    const uint8_t *data, int64_t size, int64_t start, int64_t end, int64_t least, int64_t capacity, int64_t *budget
) {
    Inflated report;
    if (end > size - 1 - least) end = size - 1 - least;
    for (int64_t at = start; at < end;) {
        int64_t stop = end;
        if (stop - at > PLACES) {
            stop = at + PLACES;
            if (!may_begin_zlib(data + at)) at = stop;
        }
        for (; at < stop; at++) {
            if (!is_zlib(data[at], data[at + 1])) continue;
            if (*budget < 0) return size;
            /* Nearly all that is none ends soon. */
            int status = sepzip_inflate(data + at + 2, size - at - 2, NULL, capacity, NULL, 0, &report);
            if (status == DONE && report.used >= least) return at;
            *budget -= report.used;
        }
    }
    return size;
}

/* ---- writing: bits ---- */

typedef struct {
    uint8_t *out;
    /* What is expected instead of room to write: the first byte that differs ends the work. */
    const uint8_t *expected;
    int64_t capacity;
    int64_t size;
    uint64_t bits;
    int count;
    int failed;
} Writer;

static inline void put_byte(Writer *w, uint8_t byte) {
    if (w->failed) return;
    if (w->size >= w->capacity || (w->expected && w->expected[w->size] != byte)) {
        w->failed = 1;
        return;
    }
    if (!w->expected) w->out[w->size] = byte;
    w->size++;
}

static inline void put(Writer *w, uint32_t value, int count) {
    w->bits |= (uint64_t)value << w->count;
    w->count += count;
    for (; w->count >= 8; w->count -= 8, w->bits >>= 8) put_byte(w, (uint8_t)w->bits);
}

static void put_padding(Writer *w) { put(w, 0, -w->count & 7); }

/* ---- writing: codes ---- */

typedef struct {
    uint32_t frequencies[HEAP];
    uint8_t lengths[LITERAL_CODES + 2];
    uint16_t codes[LITERAL_CODES + 2];
    /* The largest symbol that has a code. */
    int last;
    /* Bits of all symbols by this code, with their extra bits. */
    int64_t cost;
} Code;

/* Make canonical codes, first bit lowest, of the lengths. */
static void number_codes(Code *code, int number) {
    uint32_t counts[MOST_BITS + 1] = {0}, next[MOST_BITS + 2] = {0};
    for (int i = 0; i < number; i++) counts[code->lengths[i]]++;
    counts[0] = 0;
    for (int length = 1; length <= MOST_BITS; length++) next[length + 1] = (next[length] + counts[length]) << 1;
    for (int i = 0; i < number; i++) {
        int length = code->lengths[i];
        code->codes[i] = (uint16_t)(length ? reversed(next[length]++, length) : 0);
    }
}

typedef struct {
    const uint32_t *frequencies;
    uint8_t depths[HEAP];
    int16_t nodes[HEAP + 1];
    int size;
} Heap;

/* Among nodes of the same frequency the one of less depth comes first. */
static inline int goes_first(const Heap *h, int a, int b) {
    if (h->frequencies[a] != h->frequencies[b]) return h->frequencies[a] < h->frequencies[b];
    return h->depths[a] <= h->depths[b];
}

static void sift_down(Heap *h, int place) {
    int16_t node = h->nodes[place];
    for (int child = 2 * place; child <= h->size; child = 2 * place) {
        if (child < h->size && goes_first(h, h->nodes[child + 1], h->nodes[child])) child++;
        if (goes_first(h, node, h->nodes[child])) break;
        h->nodes[place] = h->nodes[child];
        place = child;
    }
    h->nodes[place] = node;
}

/* Lengths that exceed the limit are cut to it, and the code is made whole again: a leaf of the longest length below
   the limit goes down and takes one of those cut off as its brother. Lengths then go to the leaves, the longest to
   those that left the heap first. */
static void limit_lengths(Code *code, const int16_t *order, int placed, int symbols, int *counts, int over, int most) {
    for (; over > 0; over -= 2) {
        int length = most - 1;
        while (counts[length] == 0) length--;
        counts[length]--;
        counts[length + 1] += 2;
        counts[most]--;
    }
    for (int length = most, next = 0; length > 0; length--) {
        for (int left = counts[length]; left > 0 && next < placed; next++) {
            if (order[next] >= symbols) continue;
            code->lengths[order[next]] = (uint8_t)length;
            left--;
        }
    }
}

/* Make the code of the frequencies of so many symbols, of `most` bits at most. */
static void make_code(Code *code, int symbols, int most) {
    Heap heap = {code->frequencies, {0}, {0}, 0};
    int16_t parents[HEAP], order[HEAP];
    uint16_t depths[HEAP];
    int counts[MOST_BITS + 1] = {0}, placed = 0, node = symbols, over = 0;
    code->last = -1;
    memset(code->lengths, 0, sizeof code->lengths);
    for (int i = 0; i < symbols; i++) {
        if (!code->frequencies[i]) continue;
        heap.nodes[++heap.size] = (int16_t)i;
        code->last = i;
    }
    /* At least two symbols get a code, one of them 0 or 1 if need be. What these cost is not counted. */
    uint32_t added[2];
    int added_count = 0;
    while (heap.size < 2) {
        int symbol = code->last < 2 ? ++code->last : 0;
        heap.nodes[++heap.size] = (int16_t)symbol;
        code->frequencies[symbol] = 1;
        added[added_count++] = (uint32_t)symbol;
    }
    for (int place = heap.size / 2; place > 0; place--) sift_down(&heap, place);
    while (heap.size > 1) {
        int first = heap.nodes[1];
        heap.nodes[1] = heap.nodes[heap.size--];
        sift_down(&heap, 1);
        int second = heap.nodes[1];
        order[placed++] = (int16_t)first;
        order[placed++] = (int16_t)second;
        code->frequencies[node] = code->frequencies[first] + code->frequencies[second];
        heap.depths[node] = (uint8_t)(larger(heap.depths[first], heap.depths[second]) + 1);
        parents[first] = parents[second] = (int16_t)node;
        heap.nodes[1] = (int16_t)node++;
        sift_down(&heap, 1);
    }
    depths[node - 1] = 0;
    for (int i = placed - 1; i >= 0; i--) {
        int n = order[i], depth = depths[parents[n]] + 1;
        if (depth > most) {
            depth = most;
            over++;
        }
        depths[n] = (uint16_t)depth;
        if (n >= symbols) continue;
        code->lengths[n] = (uint8_t)depth;
        counts[depth]++;
    }
    if (over) limit_lengths(code, order, placed, symbols, counts, over, most);
    for (int i = 0; i < added_count; i++) code->frequencies[added[i]] = 0;
    number_codes(code, symbols);
}

/* Bits of the symbols of these frequencies by these lengths, extra bits included. */
static int64_t cost_of(
    const uint32_t *frequencies, const uint8_t *lengths, int number, const uint8_t *extra, int first_with_extra
) {
    int64_t cost = 0;
    for (int i = 0; i < number; i++) {
        cost += (int64_t)frequencies[i] * (lengths[i] + (i >= first_with_extra ? extra[i - first_with_extra] : 0));
    }
    return cost;
}

/* ---- writing: matches and blocks ---- */

/* How hard a level looks: a match this good leaves a quarter of the chain for a better one; one this lazy is taken
   without looking at the next place (below level 4: its places are entered into the chains if it is no longer);
   one this nice ends the search; so many places of a chain are looked at. */
static const int16_t levels[10][4] = {
    {0, 0, 0, 0}, {4, 4, 8, 4}, {4, 5, 16, 8}, {4, 6, 32, 32}, {4, 4, 16, 16},
    {8, 16, 32, 32}, {8, 16, 128, 128}, {8, 32, 128, 256}, {32, 128, 258, 1024}, {32, 258, 258, 4096},
};

typedef struct {
    int64_t level, window_bits, memory_level, strategy;
} Settings;

typedef struct {
    const uint8_t *raw;
    int64_t size;
    int64_t strategy, level;
    int64_t good, lazy, nice, chain;
    int64_t window, reach;

    /* Places are counted from the start of raw. The window of the writer that is followed begins at `base`, and so
       much of the input is in it as ends at `filled`. The place at `base` itself, and those before, are no match. */
    int64_t at, base, filled, block_start;
    /* gzip's: that the input's end was met, and the input with what is compared with behind it. */
    int ended;
    uint8_t *copy;
    uint32_t hash_mask;
    int hash_shift;
    int32_t *heads;
    int32_t *previous;

    uint32_t *symbols;
    int64_t count, block_symbols, matches;
    const uint32_t *expected;
    int64_t expected_count, seen;

    Code literals, distances, runs, fixed;
    uint8_t length_codes[MOST_MATCH + 1];
    uint8_t distance_codes[512];
    Writer writer;
} Packer;

static inline int distance_code(const Packer *p, uint32_t distance) {
    distance--;
    return p->distance_codes[distance < 256 ? distance : 256 + (distance >> 7)];
}

static void start_block(Packer *p) {
    memset(p->literals.frequencies, 0, sizeof p->literals.frequencies);
    memset(p->distances.frequencies, 0, sizeof p->distances.frequencies);
    p->literals.frequencies[END] = 1;
    p->count = p->matches = 0;
    p->block_start = p->at;
}

/* The lengths of both codes as runs: symbol | extra << 8. Return how many. */
static int make_runs(Packer *p, uint16_t *runs) {
    int number = 0;
    const Code *codes[2] = {&p->literals, &p->distances};
    memset(p->runs.frequencies, 0, sizeof p->runs.frequencies);
    for (int which = 0; which < 2; which++) {
        const uint8_t *lengths = codes[which]->lengths;
        int end = codes[which]->last + 1;
        for (int i = 0; i < end;) {
            int length = lengths[i], times = 1, most = length ? 6 : 138;
            /* A length that is not zero stands by itself before its repetitions. */
            if (length) {
                runs[number++] = (uint16_t)length;
                i++;
                times = 0;
            }
            for (;;) {
                while (times < most && i + times < end && lengths[i + times] == length) times++;
                if (times < 3) break;
                if (length) runs[number++] = (uint16_t)(16 | (times - 3) << 8);
                else if (times <= 10) runs[number++] = (uint16_t)(17 | (times - 3) << 8);
                else runs[number++] = (uint16_t)(18 | (times - 11) << 8);
                i += times;
                times = 0;
            }
            for (; times > 0; times--, i++) runs[number++] = (uint16_t)length;
        }
    }
    for (int i = 0; i < number; i++) p->runs.frequencies[runs[i] & 255]++;
    return number;
}

static void put_symbols(Packer *p, const Code *literals, const Code *distances) {
    Writer *w = &p->writer;
    for (int64_t i = 0; i < p->count && !w->failed; i++) {
        uint32_t symbol = p->symbols[i], length = symbol >> 16, distance = symbol & 0xFFFF;
        if (!length) {
            put(w, literals->codes[symbol], literals->lengths[symbol]);
            continue;
        }
        int code = p->length_codes[length];
        put(w, literals->codes[END + 1 + code], literals->lengths[END + 1 + code]);
        put(w, length - length_base[code], length_extra[code]);
        code = distance_code(p, distance);
        if (distances) put(w, distances->codes[code], distances->lengths[code]);
        else put(w, reversed((uint32_t)code, 5), 5);
        put(w, distance - distance_base[code], distance_extra[code]);
    }
    put(w, literals->codes[END], literals->lengths[END]);
}

static void end_block(Packer *p, int last) {
    static const uint8_t fives[DISTANCE_CODES] = {
        5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
    };
    Writer *w = &p->writer;
    Code *literals = &p->literals, *distances = &p->distances;
    uint16_t runs[LITERAL_CODES + DISTANCE_CODES];
    int64_t stored = p->at - p->block_start;
    make_code(literals, LITERAL_CODES, MOST_BITS);
    make_code(distances, DISTANCE_CODES, MOST_BITS);
    int run_count = make_runs(p, runs);
    make_code(&p->runs, RUN_CODES, MOST_RUN_BITS);
    int listed = RUN_CODES;
    while (listed > 4 && !p->runs.lengths[run_order[listed - 1]]) listed--;
    int64_t cost = cost_of(literals->frequencies, literals->lengths, LITERAL_CODES, length_extra, END + 1)
        + cost_of(distances->frequencies, distances->lengths, DISTANCE_CODES, distance_extra, 0)
        + cost_of(p->runs.frequencies, p->runs.lengths, RUN_CODES, run_extra, 0) + 3 * listed + 14;
    int64_t fixed_cost = cost_of(literals->frequencies, p->fixed.lengths, LITERAL_CODES, length_extra, END + 1)
        + cost_of(distances->frequencies, fives, DISTANCE_CODES, distance_extra, 0);
    int64_t bytes = (cost + 10) >> 3, fixed_bytes = (fixed_cost + 10) >> 3;
    int fixed = fixed_bytes <= bytes || p->strategy == FIXED_CODES;
    if (fixed) bytes = fixed_bytes;
    /* It is stored only while the window still has all of it. */
    if (stored + 4 <= bytes && p->block_start >= p->base) {
        if (stored > 65535) {
            w->failed = 1;
            return;
        }
        put(w, (uint32_t)(last | STORED << 1), 3);
        put_padding(w);
        put(w, (uint32_t)stored, 16);
        put(w, (uint32_t)stored ^ 0xFFFF, 16);
        for (int64_t i = p->block_start; i < p->at; i++) put_byte(w, p->raw[i]);
    } else if (fixed) {
        put(w, (uint32_t)(last | FIXED << 1), 3);
        put_symbols(p, &p->fixed, NULL);
    } else {
        put(w, (uint32_t)(last | DYNAMIC << 1), 3);
        put(w, (uint32_t)(literals->last + 1 - 257), 5);
        put(w, (uint32_t)distances->last, 5);
        put(w, (uint32_t)(listed - 4), 4);
        for (int i = 0; i < listed; i++) put(w, p->runs.lengths[run_order[i]], 3);
        for (int i = 0; i < run_count; i++) {
            int symbol = runs[i] & 255;
            put(w, p->runs.codes[symbol], p->runs.lengths[symbol]);
            put(w, (uint32_t)(runs[i] >> 8), run_extra[symbol]);
        }
        put_symbols(p, literals, distances);
    }
    if (last) put_padding(w);
    start_block(p);
}

/* gzip looks now and then whether the block so far is packed well, and few matches are in it: others may follow. */
static int gzip_ends_block(const Packer *p) {
    if (p->level <= 2 || p->count & 0xFFF) return 0;
    int64_t bits = p->count * 8;
    for (int code = 0; code < DISTANCE_CODES; code++) {
        bits += (int64_t)p->distances.frequencies[code] * (5 + distance_extra[code]);
    }
    return p->matches < p->count / 2 && bits >> 3 < (p->at - p->block_start) / 2;
}

/* Add a byte, or length << 16 | distance, to the block; return whether the block ends with it. */
static inline int add(Packer *p, uint32_t symbol) {
    if (p->seen < p->expected_count && p->expected[p->seen++] != symbol) {
        p->writer.failed = 1;
        return 0;
    }
    p->symbols[p->count++] = symbol;
    if (symbol < END) {
        p->literals.frequencies[symbol]++;
    } else {
        p->literals.frequencies[END + 1 + p->length_codes[symbol >> 16]]++;
        p->distances.frequencies[distance_code(p, symbol & 0xFFFF)]++;
        p->matches++;
    }
    return p->count == p->block_symbols || (p->strategy == GZIP && gzip_ends_block(p));
}

/* Take more of the input into the window, which holds two sizes of it and moves on by one. zlib moves it beyond the
   input's end as well; gzip stops there, and compares with what its window still has of earlier bytes: zeros at
   first, and behind two zeros that it sets. */
static void fill(Packer *p) {
    while (p->filled - p->at < LOOKAHEAD && !p->ended) {
        int64_t base = p->base, filled = p->filled;
        if (p->at - base >= p->window + p->reach) p->base += p->window;
        p->filled = smaller(p->size, p->base + 2 * p->window);
        if (p->strategy != GZIP) {
            if (p->filled == p->size) return;
        } else if (p->filled == filled) {
            p->ended = 1;
            for (int64_t at = p->size + 2; at < p->size + MOST_MATCH; at++) {
                int is_there = base > 0 || (p->base > 0 && at - p->base >= p->window);
                p->copy[at] = is_there ? p->copy[at - p->window] : 0;
            }
        }
    }
}

/* Enter the place into its chain; return the one that was entered before it. */
static inline int64_t enter(Packer *p, int64_t at) {
    const uint8_t *raw = p->raw + at;
    uint32_t hash = (uint32_t)raw[0] << 2 * p->hash_shift ^ (uint32_t)raw[1] << p->hash_shift ^ raw[2];
    int32_t *head = p->heads + (hash & p->hash_mask);
    int64_t before = *head;
    p->previous[at & (p->window - 1)] = (int32_t)before;
    *head = (int32_t)at;
    return before;
}

static inline int64_t common_length(const uint8_t *a, const uint8_t *b, int64_t most) {
    int64_t same = 0;
    for (; same + 8 <= most; same += 8) {
        uint64_t x, y;
        memcpy(&x, a + same, 8);
        memcpy(&y, b + same, 8);
        if (x != y) break;
    }
    while (same < most && a[same] == b[same]) same++;
    return same;
}

/* Look along a chain for a match of more than `best` bytes. Return its length, or best; *start is its place. */
static int64_t search(const Packer *p, int64_t candidate, int64_t best, int64_t *start) {
    int64_t at = p->at, ahead = p->strategy == GZIP ? MOST_MATCH : p->filled - at, most = smaller(ahead, MOST_MATCH);
    int64_t chain = best >= p->good ? p->chain >> 2 : p->chain, nice = smaller(p->nice, ahead);
    int64_t limit = larger(at - p->reach, p->base);
    const uint8_t *raw = p->raw;
    if (best >= most) return most;
    do {
        if (raw[candidate + best] == raw[at + best] && raw[candidate + best - 1] == raw[at + best - 1]) {
            int64_t length = common_length(raw + candidate, raw + at, most);
            if (length > best) {
                *start = candidate;
                best = length;
                if (length >= nice) break;
            }
        }
        candidate = p->previous[candidate & (p->window - 1)];
    } while (candidate > limit && --chain);
    return smaller(best, p->filled - at);
}

static inline int may_match(const Packer *p, int64_t candidate) {
    if (p->strategy == GZIP && p->at - p->base > 2 * p->window - LOOKAHEAD) return 0;
    return candidate > p->base && p->at - candidate <= p->reach;
}

static inline int64_t ahead_of(Packer *p, int64_t wanted) {
    if (p->filled - p->at < wanted) fill(p);
    return p->filled - p->at;
}

/* Levels 1 to 3: take a match where one begins. */
static void pack_fast(Packer *p) {
    for (int64_t ahead; (ahead = ahead_of(p, LOOKAHEAD)) > 0 && !p->writer.failed;) {
        int64_t start = 0, length = 0, candidate = ahead >= LEAST_MATCH ? enter(p, p->at) : NONE;
        int ends;
        if (may_match(p, candidate)) length = search(p, candidate, LEAST_MATCH - 1, &start);
        if (length >= LEAST_MATCH) {
            ends = add(p, (uint32_t)(length << 16 | (p->at - start)));
            if (length <= p->lazy && ahead - length >= LEAST_MATCH) {
                for (int64_t i = 1; i < length; i++) enter(p, p->at + i);
            }
            p->at += length;
        } else {
            ends = add(p, p->raw[p->at]);
            p->at++;
        }
        if (ends) end_block(p, 0);
    }
    end_block(p, 1);
}

/* Levels 4 to 9: take a match unless a longer one begins at the next place. */
static void pack_slow(Packer *p) {
    int64_t length = LEAST_MATCH - 1, start = 0;
    int waiting = 0;
    for (int64_t ahead; (ahead = ahead_of(p, LOOKAHEAD)) > 0 && !p->writer.failed;) {
        int64_t candidate = ahead >= LEAST_MATCH ? enter(p, p->at) : NONE;
        int64_t before = length, before_start = start;
        length = LEAST_MATCH - 1;
        if (before < p->lazy && may_match(p, candidate)) {
            length = search(p, candidate, before, &start);
            if (length <= 5 && (p->strategy == FILTERED || (length == LEAST_MATCH && p->at - start > FAR))) {
                length = LEAST_MATCH - 1;
            }
        }
        if (before >= LEAST_MATCH && length <= before) {
            int64_t last = p->filled - LEAST_MATCH;
            int ends = add(p, (uint32_t)(before << 16 | (p->at - 1 - before_start)));
            for (int64_t i = p->at + 1; i < p->at + before - 1 && i <= last; i++) enter(p, i);
            p->at += before - 1;
            waiting = 0;
            length = LEAST_MATCH - 1;
            if (ends) end_block(p, 0);
        } else {
            /* A block that ends with the waiting byte ends before this one. */
            if (waiting && add(p, p->raw[p->at - 1])) end_block(p, 0);
            waiting = 1;
            p->at++;
        }
    }
    if (waiting) add(p, p->raw[p->at - 1]);
    end_block(p, 1);
}

static void pack_runs(Packer *p) {
    for (int64_t ahead; (ahead = ahead_of(p, MOST_MATCH + 1)) > 0 && !p->writer.failed;) {
        int64_t length = 0;
        if (ahead >= LEAST_MATCH && p->at > 0) {
            length = common_length(p->raw + p->at - 1, p->raw + p->at, smaller(ahead, MOST_MATCH));
        }
        int ends = add(p, length >= LEAST_MATCH ? (uint32_t)(length << 16 | 1) : p->raw[p->at]);
        p->at += length >= LEAST_MATCH ? length : 1;
        if (ends) end_block(p, 0);
    }
    end_block(p, 1);
}

static void pack_bytes(Packer *p) {
    while (ahead_of(p, 1) > 0 && !p->writer.failed) {
        int ends = add(p, p->raw[p->at]);
        p->at++;
        if (ends) end_block(p, 0);
    }
    end_block(p, 1);
}

static int may_be(const Settings *s) {
    if (s->level < 1 || s->level > 9 || s->window_bits < 9 || s->window_bits > 15) return 0;
    if (s->memory_level < 1 || s->memory_level > 9 || s->strategy < DEFAULT || s->strategy > GZIP) return 0;
    return s->strategy != GZIP || (s->window_bits == 15 && s->memory_level == 8);
}

static void prepare(Packer *p, const Settings *settings) {
    const int16_t *level = levels[settings->level];
    p->strategy = settings->strategy;
    p->level = settings->level;
    p->good = level[0];
    p->lazy = level[1];
    p->nice = level[2];
    p->chain = level[3];
    p->window = (int64_t)1 << settings->window_bits;
    p->reach = p->window - LOOKAHEAD;
    p->hash_mask = (1u << (settings->memory_level + 7)) - 1;
    p->hash_shift = (int)(settings->memory_level + 9) / 3;
    p->block_symbols = p->strategy == GZIP ? 32767 : ((int64_t)1 << (settings->memory_level + 6)) - 1;
    for (int code = 0; code < 29; code++) {
        for (int i = 0; i < 1 << length_extra[code] && length_base[code] + i <= MOST_MATCH; i++) {
            p->length_codes[length_base[code] + i] = (uint8_t)code;
        }
    }
    for (int code = 0; code < DISTANCE_CODES; code++) {
        for (int i = 0; i < 1 << distance_extra[code]; i += code < 16 ? 1 : 128) {
            int distance = distance_base[code] - 1 + i;
            p->distance_codes[distance < 256 ? distance : 256 + (distance >> 7)] = (uint8_t)code;
        }
    }
    for (int i = 0; i < 288; i++) p->fixed.lengths[i] = (uint8_t)fixed_length(i);
    number_codes(&p->fixed, 288);
}

/* What packing came to. The order is that of Deflated in native.py. */
typedef struct {
    int64_t size;
    /* How much of raw was looked at. */
    int64_t reached;
} Deflated;

/* Pack raw. Without expected, the stream goes to out, which has `capacity` bytes; DIFFERS says that it has too few.
   With expected, of `capacity` bytes, the stream is only compared with it, and the first of its symbols with
   those that sepzip_inflate kept; report->size is how many bytes are the same. */
PUBLIC int sepzip_deflate(
    const uint8_t *raw, int64_t size, const Settings *settings, uint8_t *out, const uint8_t *expected, int64_t capacity,
    const uint32_t *symbols, int64_t symbol_count, Deflated *report
) {
    memset(report, 0, sizeof *report);
    if (!may_be(settings) || size < 0 || size > 1 << 30) return IMPOSSIBLE;
    Packer *p = calloc(1, sizeof *p);
    if (!p) return NO_MEMORY;
    prepare(p, settings);
    p->heads = calloc((size_t)p->hash_mask + 1, sizeof *p->heads);
    p->previous = malloc((size_t)p->window * sizeof *p->previous);
    p->symbols = malloc((size_t)p->block_symbols * sizeof *p->symbols);
    if (p->strategy == GZIP) p->copy = calloc((size_t)size + MOST_MATCH, 1);
    int status = NO_MEMORY;
    if (p->heads && p->previous && p->symbols && (p->copy || p->strategy != GZIP)) {
        if (p->copy && size) memcpy(p->copy, raw, (size_t)size);
        p->raw = p->copy ? p->copy : raw;
        p->size = size;
        p->expected = symbols;
        p->expected_count = symbol_count;
        p->writer.out = out;
        p->writer.expected = expected;
        p->writer.capacity = capacity;
        start_block(p);
        if (p->strategy == HUFFMAN_ONLY) pack_bytes(p);
        else if (p->strategy == RUNS_ONLY) pack_runs(p);
        else if (p->level < 4) pack_fast(p);
        else pack_slow(p);
        report->size = p->writer.size;
        report->reached = p->at;
        status = p->writer.failed || (expected && p->writer.size != capacity) ? DIFFERS : SAME;
    }
    free(p->copy);
    free(p->symbols);
    free(p->previous);
    free(p->heads);
    free(p);
    return status;
}
