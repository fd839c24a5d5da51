/* LZW as GIF has it, both ways: the data of an image from the byte of its code size to the empty block behind it.

   A writer takes the longest string that the table has, each time. It may choose when to empty the table: most do
   as soon as it is full, one string earlier or later, and some never. Here it is emptied after a number of codes
   that is the same each time.

   Many writers look strings up as the program compress did, and take the place of one of them, byte 0 after code
   0, for a free one: it is lost when another string comes by there, and entered anew when it is met again. */

#include <stdint.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

enum { CODES = 4096, MOST_WIDTH = 12, SLOTS = 5003, SLOT_SHIFT = 4, FREE = -1, DONE = 0, INVALID = 1, TOO_LARGE = 2, LARGEST_BLOCK = 255 };

/* How an image's data was written. The order is that of Image in native.py. */
typedef struct {
    int64_t code_size;
    /* Bytes of a block but the last. */
    int64_t block;
    /* Codes before the table is emptied each time; 0: it never is. */
    int64_t period;
    /* Whether a clear code comes first, and an end code last. */
    int64_t clears_first;
    int64_t ends;
    /* Whether the string of code 0 and byte 0 is lost when another one comes by. */
    int64_t forgets;

    /* Bytes of the image's data, or those that were looked at where it is none. */
    int64_t used;
    int64_t raw;
} Image;

typedef struct {
    const uint8_t *data;
    int64_t size;
    int64_t at;
    int64_t left;
    int64_t block;
    int was_short;
    uint32_t bits;
    int count;
} Reader;

/* Return the next code, or -1 where there is no more, or blocks are not all of one size. */
static int next_code(Reader *r, int width) {
    while (r->count < width) {
        if (r->left == 0) {
            if (r->at >= r->size || r->data[r->at] == 0 || r->was_short) return -1;
            r->left = r->data[r->at++];
            if (r->left > r->size - r->at) return -1;
            if (r->block == 0) r->block = r->left;
            else if (r->left > r->block) return -1;
            r->was_short = r->left < r->block;
        }
        r->bits |= (uint32_t)r->data[r->at++] << r->count;
        r->left--;
        r->count += 8;
    }
    int code = (int)(r->bits & ((1u << width) - 1));
    r->bits >>= width;
    r->count -= width;
    return code;
}

static int read_image(Reader *r, uint8_t *raw, int64_t capacity, Image *image) {
    /* Each string of the table is a place in raw and a length: the string before, and the byte that followed it. */
    int64_t starts[CODES], lengths[CODES];
    int code_size = r->size > 0 ? r->data[r->at++] : 0;
    if (code_size < 1 || code_size > 8) return INVALID;
    int clear = 1 << code_size, first = clear + 2, next = first, width = code_size + 1;
    int64_t written = 0, since = 0, before = -1, before_length = 0;
    image->code_size = code_size;
    for (int64_t number = 0;; number++) {
        int code = next_code(r, width);
        if (code < 0) break;
        if (code == clear + 1) {
            image->ends = 1;
            break;
        }
        if (code == clear) {
            if (number == 0) {
                image->clears_first = 1;
                continue;
            }
            if (since == 0 || (image->period && since != image->period)) return INVALID;
            image->period = since;
            since = 0;
            next = first;
            width = code_size + 1;
            before = -1;
            continue;
        }
        if (before >= 0 && next < CODES) {
            starts[next] = before;
            lengths[next] = before_length + 1;
            next++;
        }
        if (code >= next) return INVALID;
        int64_t length = code < clear ? 1 : lengths[code];
        if (length > capacity - written) return TOO_LARGE;
        if (raw && code < clear) raw[written] = (uint8_t)code;
        else if (raw) for (int64_t i = 0; i < length; i++) raw[written + i] = raw[starts[code] + i];
        before = written;
        before_length = length;
        written += length;
        since++;
        if (next == 1 << width && width < MOST_WIDTH) width++;
    }
    if (r->left || r->at >= r->size || r->data[r->at] != 0) return INVALID;
    if (image->period && since > image->period) return INVALID;
    /* A single block says no more than that none is larger. */
    image->block = r->block == 0 || r->at == r->block + 2 ? LARGEST_BLOCK : r->block;
    image->raw = written;
    r->at++;
    return DONE;
}

/* Read the image data at the start of data; its pixels, `capacity` at most, go to raw if there is one. INVALID also
   where it was not written in the ways that sepzip_lzw_encode knows. */
PUBLIC int sepzip_lzw_decode(const uint8_t *data, int64_t size, uint8_t *raw, int64_t capacity, Image *image) {
    Reader reader = {data, size, 0, 0, 0, 0, 0, 0};
    memset(image, 0, sizeof *image);
    int status = read_image(&reader, raw, capacity, image);
    image->used = reader.at;
    return status;
}

typedef struct {
    uint8_t *out;
    int64_t capacity;
    int64_t size;
    /* Where the number of bytes of the block that is being written stands. */
    int64_t head;
    int64_t block;
    uint32_t bits;
    int count;
    int failed;
} Writer;

static void put_byte(Writer *w, uint8_t byte) {
    if (w->size + 2 > w->capacity) {
        w->failed = 1;
        return;
    }
    if (w->head < 0) {
        w->head = w->size++;
        w->out[w->head] = 0;
    }
    w->out[w->size++] = byte;
    if (++w->out[w->head] == w->block) w->head = -1;
}

static void put_code(Writer *w, int code, int width) {
    w->bits |= (uint32_t)code << w->count;
    w->count += width;
    for (; w->count >= 8; w->count -= 8, w->bits >>= 8) put_byte(w, (uint8_t)w->bits);
}

typedef struct {
    /* Of each string that was entered, the byte that it ends with << 12 | the code before it. */
    int32_t keys[SLOTS];
    uint16_t codes[SLOTS];
    int forgets;
} Table;

/* Return the slot of the string of a code and a byte, or the one where it is entered. */
static int slot_of(const Table *t, int code, int byte) {
    int32_t key = byte << 12 | code;
    int slot = byte << SLOT_SHIFT ^ code;
    if (t->keys[slot] == key || t->keys[slot] == FREE) return slot;
    int step = slot ? SLOTS - slot : 1;
    do {
        slot -= step;
        if (slot < 0) slot += SLOTS;
        if (t->keys[slot] == key) return slot;
    } while (t->forgets ? t->keys[slot] > 0 : t->keys[slot] != FREE);
    return slot;
}

static void empty(Table *t) { memset(t->keys, 255, sizeof t->keys); }

/* Write the image data of raw in the way of *image, whose `used` becomes its size. INVALID if there is no such way
   or a pixel is too large for the code size, TOO_LARGE if out has too little room. */
PUBLIC int sepzip_lzw_encode(const uint8_t *raw, int64_t size, uint8_t *out, int64_t capacity, Image *image) {
    if (image->code_size < 1 || image->code_size > 8 || image->block < 1 || image->block > LARGEST_BLOCK) return INVALID;
    if (image->period < 0 || size < 0 || capacity < 2) return INVALID;
    Table table, *t = &table;
    Writer writer = {out, capacity, 1, -1, image->block, 0, 0, 0}, *w = &writer;
    int clear = 1 << image->code_size, first = clear + 2, next = first, width = (int)image->code_size + 1;
    int64_t since = 0;
    out[0] = (uint8_t)image->code_size;
    t->forgets = image->forgets != 0;
    empty(t);
    if (image->clears_first) put_code(w, clear, width);
    for (int64_t at = 0; at < size && !w->failed;) {
        int code = raw[at++], slot = 0;
        if (code >= clear) return INVALID;
        for (; at < size; at++) {
            if (raw[at] >= clear) return INVALID;
            slot = slot_of(t, code, raw[at]);
            if (t->keys[slot] != (raw[at] << 12 | code)) break;
            code = t->codes[slot];
        }
        put_code(w, code, width);
        since++;
        /* The reader is one string behind, and the width is what it needs: it enters that of the code before. */
        if (next == 1 << width && width < MOST_WIDTH) width++;
        if (at == size) break;
        if (since == image->period) {
            put_code(w, clear, width);
            empty(t);
            since = 0;
            next = first;
            width = (int)image->code_size + 1;
        } else if (next < CODES) {
            t->keys[slot] = raw[at] << 12 | code;
            t->codes[slot] = (uint16_t)next++;
        }
    }
    if (image->ends) put_code(w, clear + 1, width);
    if (w->count > 0) put_code(w, 0, 8 - w->count);
    if (w->failed || w->size >= capacity) return TOO_LARGE;
    out[w->size++] = 0;
    image->used = w->size;
    return DONE;
}
