/* The random bits of grid noise, in the orders in which they are used, put to a battery of TestU01.

   random_bits WHAT ORDER HALVES KEY0 KEY1 [KEY0 KEY1 ...]

   WHAT     SmallCrush, Crush, Rabbit or Alphabit; "words" prints the first 4096 words; "raw" writes bits for ever, for dieharder
   ORDER    used, draws, images, rest, or seeds, which takes the keys in turn; a word is 64 bits, taken in two halves
   HALVES   as-used, or reversed: the last bit first, since most tests look at the first ones

   random_bits.py compiles this and compares the words with those of the library. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <bbattery.h>
#include <swrite.h>
#include <unif01.h>

enum { MOST = 4096 };
static const char *ORDERS[] = {"used", "draws", "images", "rest", "seeds"};
static uint64_t keys[MOST][2], number, spare;
static int order, reversed, have, seeds;

static uint64_t mix(uint64_t x, uint64_t key0, uint64_t key1) {
    x = (x + key0) * 0x9E3779B97F4A7C15u;
    x ^= x >> 30;
    x = x * 0xBF58476D1CE4E5B9u + key1;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* 18 bits for the image, 19 for the draw, 27 within the draw; images of 3 x 32 x 32 pixels, four in a word. */
static uint64_t counter(uint64_t i) {
    switch (order) {
    case 0: return (i / 768) << 27 | i % 768;                                 /* word by word, draw by draw */
    case 1: return (i >> 19 & 0x3FFFF) << 46 | (i & 0x7FFFF) << 27 | i >> 37; /* the same word of all draws */
    case 2: return (i & 0x3FFFF) << 46 | (i >> 18 & 0x7FFFF) << 27 | i >> 37; /* the same word and draw of all images */
    case 3: return (i / 3072) << 27 | 1u << 26 | i % 3072;                    /* the rest of the law, pixel by pixel */
    default: i /= seeds; return (i / 768) << 27 | i % 768;                    /* the same word and draw under all keys */
    }
}

static uint64_t word(uint64_t i) {
    uint64_t *key = keys[order == 4 ? i % seeds : 0];
    return mix(counter(i), key[0], key[1]);
}

static uint32_t turned(uint32_t x) {
    x = (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
    x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
    x = (x >> 4 & 0x0F0F0F0F) | (x & 0x0F0F0F0F) << 4;
    return __builtin_bswap32(x);
}

static unsigned int next(void) {
    uint32_t half;
    if (!have) spare = word(number++);
    half = have ? spare >> 32 : (uint32_t) spare;
    have = !have;
    return reversed ? turned(half) : half;
}

int main(int argc, char **argv) {
    if (argc < 6 || argc % 2) return 2;
    for (order = 0; order < 5 && strcmp(ORDERS[order], argv[2]); order++);
    if (order == 5) return 2;
    reversed = !strcmp(argv[3], "reversed");
    for (; 4 + 2 * seeds < argc && seeds < MOST; seeds++)
        for (int k = 0; k < 2; k++) keys[seeds][k] = strtoull(argv[4 + 2 * seeds + k], 0, 10);
    if (!strcmp(argv[1], "words")) {
        for (uint64_t i = 0; i < 4096; i++) printf("%llu\n", (unsigned long long) word(i));
        return 0;
    }
    if (!strcmp(argv[1], "raw"))
        for (;;) {
            uint32_t block[4096];
            for (int i = 0; i < 4096; i++) block[i] = next();
            if (fwrite(block, sizeof block, 1, stdout) != 1) return 0;
        }
    unif01_Gen *gen = unif01_CreateExternGenBits(argv[2], next);
    swrite_Basic = FALSE;
    if (!strcmp(argv[1], "SmallCrush")) bbattery_SmallCrush(gen);
    else if (!strcmp(argv[1], "Crush")) bbattery_Crush(gen);
    else if (!strcmp(argv[1], "Rabbit")) bbattery_Rabbit(gen, 268435456.0);
    else if (!strcmp(argv[1], "Alphabit")) bbattery_Alphabit(gen, 1073741824.0, 0, 32);
    else return 2;
    return 0;
}
