/* Direct convolution by 3 x 3 kernels, and the gradient of such kernels, of maps in channels-last order.

   PyTorch's (oneDNN's) products reach a third to a half of a processor's speed where there are few channels, 16 of them
   or the four kept of 16: one load for every multiply-add. Here a number of a map, once loaded, meets all three columns
   of the kernel; the sums stay in registers. The lanes of a vector are channels of the output, or, for the last few of
   them, which would not fill one, the inputs: pruning leaves layers of 3 channels between layers of 16.

   Every number of a map is summed up by one thread, a kernel's gradient over parts of the instances in their order: the
   result does not depend on the number of threads. direct_convolution.py calls it. */

#include "native.h"

#if defined(__AVX512F__)
enum { BYTES = 64, REGISTERS = 32 };
#elif defined(__AVX__)
enum { BYTES = 32, REGISTERS = 16 };
#elif defined(__aarch64__)
enum { BYTES = 16, REGISTERS = 32 };
#else
enum { BYTES = 16, REGISTERS = 16 };
#endif

enum { J = 3, L = 3, LANES = BYTES / sizeof(real), PIXELS = REGISTERS / 2 };
enum { FEW_PIXELS = LANES < 8 ? 2 : 4, FEW = LANES / FEW_PIXELS }; /* whose sums, a vector each, are folded into one */

typedef real vector __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));
typedef __typeof__((vector){0} < (vector){0}) places;

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif
#define SPECIALIZED static inline __attribute__((always_inline))

/* Kernels as the tiles read them, [C / LANES][J][I][L][LANES], of strides of_ in `kernel`; of its inputs those in
   channel_I, all if NULL; rows and columns backwards if mirrored. Missing lanes are zero. */
static void pack(const real *kernel, size of_c, size of_i, size of_j, size of_l, size mirrored,
                 const int64_t *channel_I, size C, size I, real *packed, int threads) {
    if (mirrored) {
        kernel += (J - 1) * of_j + (L - 1) * of_l;
        of_j = -of_j;
        of_l = -of_l;
    }
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (size first = 0; first < C; first += LANES)
        for (size j = 0; j < J; j++) {
            real *to = packed + (first * J + j * LANES) * I * L;
            for (size i = 0; i < I; i++) {
                const real *from = kernel + (channel_I ? channel_I[i] : i) * of_i + j * of_j;
                for (size l = 0; l < L; l++)
                    for (size c = first; c < first + LANES; c++) *to++ = c < C ? from[c * of_c + l * of_l] : 0;
            }
        }
}

/* How many of C channels, the last, have lanes of inputs. */
static size few_of(size C, size I) {
    const size rest = C % LANES;
    return rest <= LANES / 2 && I >= LANES ? rest : 0;
}

static size whole(size numbers) { return (numbers + LANES - 1) / LANES * LANES; }

/* The same for those, [C / FEW][J][L][FEW][I in whole vectors]. The last vector ends with the last input; what the one
   before it has too is zero there. */
static void pack_few(const real *kernel, size of_c, size of_i, size of_j, size of_l, size mirrored,
                     const int64_t *channel_I, size C, size I, real *packed) {
    const size wide = whole(I), last = wide - LANES;
    for (size c = 0; c < C; c++)
        for (size j = 0; j < J; j++)
            for (size l = 0; l < L; l++) {
                const size row = mirrored ? J - 1 - j : j, column = mirrored ? L - 1 - l : l;
                const real *from = kernel + c * of_c + row * of_j + column * of_l;
                real *to = packed + ((c / FEW * J * L + j * L + l) * FEW + c % FEW) * wide;
                for (size n = 0; n < wide; n++) {
                    const size i = n < last ? n : n + I - wide;
                    to[n] = n < last || i >= last ? from[(channel_I ? channel_I[i] : i) * of_i] : 0;
                }
            }
}

/* What is convolved: pictures of H x W pixels and I channels, their pixels `apart` from each other in rows and columns
   and zeros between (1: none), zeros of rows and columns before and behind. */
typedef struct {
    size H, W, I, apart, rows_before, columns_before;
} Pictures;

/* Row r of one picture with its zeros; NULL where there are zeros only. Zeros within `row` are there already. */
static const real *row_of(const Pictures *all, const real *picture, size r, real *row) {
    const size step = all->apart, h = r - all->rows_before, numbers = all->W * all->I;
    if (h < 0 || h % step || h / step >= all->H) return NULL;
    const real *from = picture + h / step * numbers;
    real *to = row + all->columns_before * all->I;
    if (step == 1)
        memcpy(to, from, numbers * sizeof *to);
    else
        for (size w = 0; w < all->W; w++) memcpy(to + w * step * all->I, from + w * all->I, all->I * sizeof *to);
    return row;
}

/* P pixels of a row of the output, S pixels of the input apart, by V vectors of its channels. */
SPECIALIZED void tile(const int P, const int V, const int S, const real *const row[J], size first, size I,
                      const real *packed, const real *bias, real *out, size C, size pixels, size lanes) {
    vector sum[2][PIXELS];
    UNROLL for (int v = 0; v < V; v++)
        UNROLL for (int p = 0; p < P; p++) sum[v][p] = *(const vector *)(bias + v * LANES);
    for (int j = 0; j < J; j++) {
        if (!row[j]) continue;
        const real *at = row[j] + first * S * I, *kernel = packed + j * I * L * LANES;
        for (size i = 0; i < I; i++, at++, kernel += L * LANES) {
            vector column[2][L];
            UNROLL for (int v = 0; v < V; v++)
                UNROLL for (int l = 0; l < L; l++)
                    column[v][l] = *(const vector *)(kernel + v * J * I * L * LANES + l * LANES);
            UNROLL for (int w = 0; w < (P - 1) * S + L; w++) {
                const vector x = at[w * I] - (vector){0};
                UNROLL for (int l = 0; l < L; l++) {
                    if (w < l || (w - l) % S || (w - l) / S >= P) continue;
                    UNROLL for (int v = 0; v < V; v++) sum[v][(w - l) / S] += x * column[v][l];
                }
            }
        }
    }
    if (pixels == P && lanes == V * LANES) {
        UNROLL for (int v = 0; v < V; v++)
            UNROLL for (int p = 0; p < P; p++) *(vector *)(out + p * C + v * LANES) = sum[v][p];
        return;
    }
    UNROLL for (int v = 0; v < V; v++)
        UNROLL for (int p = 0; p < P; p++)
            if (p < pixels) memcpy(out + p * C + v * LANES, &sum[v][p], least(LANES, lanes - v * LANES) * sizeof(real));
}

/* Of every 2 half lanes, the first half: the sums of a's two halves; the second: of b's. */
SPECIALIZED vector halved(vector a, vector b, const int half) {
    vector low, high;
#ifdef __clang__
    UNROLL for (int n = 0; n < LANES; n++) {
        const int at = n / (2 * half) * 2 * half + n % half;
        low[n] = n % (2 * half) < half ? a[at] : b[at];
        high[n] = n % (2 * half) < half ? a[at + half] : b[at + half];
    }
#else
    places of_low, of_high; /* from LANES on: of b */
    UNROLL for (int n = 0; n < LANES; n++) {
        of_low[n] = n / (2 * half) * 2 * half + n % half + (n % (2 * half) < half ? 0 : LANES);
        of_high[n] = of_low[n] + half;
    }
    low = __builtin_shuffle(a, b, of_low);
    high = __builtin_shuffle(a, b, of_high);
#endif
    return low + high;
}

/* Lane n: the sum of all lanes of sum[n]. */
SPECIALIZED vector folded(vector sum[LANES]) {
#define HALVE(HALF) \
    if (HALF < LANES) UNROLL for (int n = 0; n < HALF; n++) sum[n] = halved(sum[n], sum[n + HALF], HALF)
    HALVE(8);
    HALVE(4);
    HALVE(2);
    HALVE(1);
#undef HALVE
    return sum[0];
}

/* FEW_PIXELS pixels of a row of the output, S pixels of the input apart, by M of its channels, M <= FEW. */
SPECIALIZED void few_tile(const int M, const int S, const real *const row[J], size first, size I, const real *packed,
                          const real *bias, real *out, size C, size pixels) {
    const size wide = whole(I);
    vector sum[LANES];
    UNROLL for (int n = 0; n < LANES; n++) sum[n] = (vector){0};
    for (int j = 0; j < J; j++) {
        if (!row[j]) continue;
        const real *at = row[j] + first * S * I, *kernel = packed + j * L * FEW * wide;
        for (size i = 0; i < wide; i += LANES) {
            vector x[(FEW_PIXELS - 1) * 2 + L];
            UNROLL for (int w = 0; w < (FEW_PIXELS - 1) * S + L; w++)
                x[w] = *(const vector *)(at + w * I + least(i, I - LANES));
            UNROLL for (int l = 0; l < L; l++)
                UNROLL for (int m = 0; m < M; m++) {
                    const vector own = *(const vector *)(kernel + (l * FEW + m) * wide + i);
                    UNROLL for (int p = 0; p < FEW_PIXELS; p++) sum[p * FEW + m] += x[p * S + l] * own;
                }
        }
    }
    const vector all = folded(sum);
    UNROLL for (int p = 0; p < FEW_PIXELS; p++)
        if (p < pixels)
            UNROLL for (int m = 0; m < M; m++) out[p * C + m] = all[p * FEW + m] + bias[m];
}

/* One row of the output, its first `full` channels. */
SPECIALIZED void line(const int S, const real *const row[J], size I, const real *packed, const real *bias, real *out,
                      size W, size C, size full) {
#define TILE(P, V) \
    tile(P, V, S, row, w, I, packed + c * J * I * L, bias + c, out + w * C + c, C, least(P, W - w), least(V * LANES, full - c))
    size c = 0;
    for (; c + 2 * LANES <= full; c += 2 * LANES)
        for (size w = 0; w < W; w += PIXELS / 2) TILE(PIXELS / 2, 2);
    for (; c < full; c += LANES) {
        size w = 0;
        for (; w + PIXELS / 2 < W; w += PIXELS) TILE(PIXELS, 1);
        if (w < W) TILE(PIXELS / 2, 1);
    }
#undef TILE
}

/* Its `few` channels behind those. */
SPECIALIZED void few_line(const int S, const real *const row[J], size I, const real *packed, const real *bias, real *out,
                          size W, size C, size few) {
#define TILE(M) \
    few_tile(M, S, row, w, I, packed + c * J * L * whole(I), bias + c, out + w * C + c, C, least(FEW_PIXELS, W - w))
    for (size c = 0; c < few; c += FEW)
        for (size w = 0; w < W; w += FEW_PIXELS)
            if (few - c >= FEW) TILE(FEW);
            else if (few - c == 3) TILE(FEW > 3 ? 3 : 1);
            else if (few - c == 2) TILE(FEW > 2 ? 2 : 1);
            else TILE(1);
#undef TILE
}

/* out[b, h, w, c] = bias_C[c] + sum over i, j, l of  kernel[c, i, j, l] x[b, h S + j, w S + l, i],  S = 1 or 2, of B
   pictures as in Pictures. bias_C: NULL for none. scratch: room for bias and kernels, C and I rounded up to whole vectors. */
void convolve(const real *x, size B, size H, size W, size I, size apart, size rows_before, size columns_before,
              const real *kernel, size of_c, size of_i, size of_j, size of_l, size mirrored, const int64_t *channel_I,
              const real *bias_C, size S, real *out, size out_H, size out_W, size C, real *scratch, int threads) {
    const Pictures all = {H, W, I, apart, rows_before, columns_before};
    const size few = few_of(C, I), full = C - few, bands = least((out_H + 3) / 4, 1 + 2 * threads / B);
    real *bias = scratch, *packed = bias + whole(C), *packed_few = packed + whole(full) * J * I * L;
    memset(bias, 0, whole(C) * sizeof *bias);
    if (bias_C) memcpy(bias, bias_C, C * sizeof *bias);
    pack(kernel, of_c, of_i, of_j, of_l, mirrored, channel_I, full, I, packed, threads);
    pack_few(kernel + full * of_c, of_c, of_i, of_j, of_l, mirrored, channel_I, few, I, packed_few);
    const size in_row = columns_before + (W - 1) * apart + 1, read = (out_W + PIXELS) * S + L;
    const size width = (in_row > read ? in_row : read) * I;
#pragma omp parallel num_threads(threads)
    {
        real buffer[J * width] __attribute__((aligned(BYTES)));
        memset(buffer, 0, sizeof buffer);
#pragma omp for collapse(2) schedule(static)
        for (size b = 0; b < B; b++)
            for (size band = 0; band < bands; band++) {
                const size from = band * out_H / bands, to = (band + 1) * out_H / bands;
                const real *turn[J], *row[J];
                size next = from * S;
                for (size h = from; h < to; h++) {
                    for (; next < h * S + J; next++)
                        turn[next % J] = row_of(&all, x + b * H * W * I, next, buffer + next % J * width);
                    for (size j = 0; j < J; j++) row[j] = turn[(h * S + j) % J];
                    real *to_row = out + (b * out_H + h) * out_W * C;
#define LINES(S) \
    line(S, row, I, packed, bias, to_row, out_W, C, full); \
    few_line(S, row, I, packed_few, bias + full, to_row + full, out_W, C, few)
                    if (S == 1) {
                        LINES(1);
                    } else {
                        LINES(2);
                    }
#undef LINES
                }
            }
    }
}

/* What one pixel of the error, M of its channels, gives to columns `from` to `to` of the kernels by LANES inputs at x. */
SPECIALIZED void add_pixel(const int M, vector own[L][8], const real *x, size I, const real *error, int from, int to) {
    vector near[L];
    UNROLL for (int l = 0; l < L; l++) near[l] = l >= from && l < to ? *(const vector *)(x + l * I) : (vector){0};
    UNROLL for (int k = 0; k < M; k++) {
        const vector error_k = error[k] - (vector){0};
        UNROLL for (int l = 0; l < L; l++)
            if (l >= from && l < to) own[l][k] += error_k * near[l];
    }
}

/* Adds to sum [L, K, wide] at row j of the kernels, for M of its K channels and LANES of the I inputs, what rows `from`
   to `to` of the error of one instance give. */
SPECIALIZED void add_gradient(const int M, const real *x, size H, size W, size I, const real *error, size from, size to,
                              size out_W, size K, size S, size rows_before, size columns_before, size j, real *sum,
                              size wide) {
    /* pixels of the error from `first` to `last` read no zeros */
    const size first = least((columns_before + S - 1) / S, out_W);
    const size last = W + columns_before < L ? first : least((W + columns_before - L) / S + 1, out_W);
    vector own[L][8];
    UNROLL for (int l = 0; l < L; l++)
        UNROLL for (int k = 0; k < M; k++) own[l][k] = *(const vector *)(sum + (l * K + k) * wide);
    for (size h = from; h < to; h++) {
        const size row = h * S + j - rows_before;
        if (row < 0 || row >= H) continue;
        const real *e = error + h * out_W * K, *at = x + (row * W - columns_before) * I;
        size w = 0;
#define PIXELS_TO(END, FROM, TO) \
    for (; w < (END); w++, e += K, at += S * I) add_pixel(M, own, at, I, e, (FROM), (TO))
        PIXELS_TO(first, columns_before - w * S, W + columns_before - w * S);
        PIXELS_TO(last, 0, L);
        PIXELS_TO(out_W, columns_before - w * S, W + columns_before - w * S);
#undef PIXELS_TO
    }
    UNROLL for (int l = 0; l < L; l++)
        UNROLL for (int k = 0; k < M; k++) *(vector *)(sum + (l * K + k) * wide) = own[l][k];
}

/* sum[j, l, k, i] = sum over b, h, w of  x[b, h S + j, w S + l, i] error[b, h, w, k],  x with zeros around it; I
   at least LANES. sum: room for [parts, J, L, K, I rounded up to whole vectors]; the result, [J, L, K, I], is first. */
void kernel_gradient(const real *x, size B, size H, size W, size I, const real *error, size out_H, size out_W, size K,
                     size S, size rows_before, size columns_before, real *sum, size parts, int threads) {
    enum { BAND = 8 }; /* rows of the error, whose part of x is read three times from the nearest cache */
    const size wide = whole(I), numbers = J * L * K * wide, bands = (out_H + BAND - 1) / BAND;
    memset(sum, 0, parts * numbers * sizeof *sum);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size p = 0; p < parts; p++)
        for (size n = p * B / parts * bands; n < (p + 1) * B / parts * bands; n++) {
            const size b = n / bands, from = n % bands * BAND, to = least(from + BAND, out_H);
            for (size i = 0; i < wide; i += LANES)
                for (size j = 0; j < J; j++)
                    for (size k = 0, m; k < K; k += m) {
                        /* the last vector ends with the last input, where it may cover some of those before */
                        const real *own = x + b * H * W * I + least(i, I - LANES);
                        const real *e = error + b * out_H * out_W * K + k;
                        real *into = sum + p * numbers + (j * L * K + k) * wide + i;
#define ADD(M) add_gradient(M, own, H, W, I, e, from, to, out_W, K, S, rows_before, columns_before, j, into, wide)
                        m = least(K - k, REGISTERS / 4);
                        m = m >= 8 ? 8 : m >= 4 ? 4 : m >= 2 ? 2 : 1;
                        if (m == 8) ADD(8);
                        else if (m == 4) ADD(4);
                        else if (m == 2) ADD(2);
                        else ADD(1);
                    }
        }
    for (size p = 1; p < parts; p++)
        for (size n = 0; n < numbers; n++) sum[n] += sum[p * numbers + n];
    if (wide == I) return;
    for (size row = 0; row < J * L * K; row++)
        for (size i = 0; i < I; i++)
            sum[row * I + i] = sum[row * wide + (i < wide - LANES ? i : i + wide - I)];
}
