/* stdint.h - from the compiler's own macros, where there is no C library. */
#ifndef FB_STDINT_H
#define FB_STDINT_H
typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __INTPTR_TYPE__ intptr_t;
typedef __UINTPTR_TYPE__ uintptr_t;
#define INT8_MIN (-128)
#define INT8_MAX 127
#define UINT8_MAX 255
#define INT16_MIN (-32768)
#define INT16_MAX 32767
#define UINT16_MAX 65535
#define INT32_MAX __INT32_MAX__
#define INT32_MIN (-INT32_MAX - 1)
#define UINT32_MAX __UINT32_MAX__
#define INT64_MAX __INT64_MAX__
#define INT64_MIN (-INT64_MAX - 1)
#define UINT64_MAX __UINT64_MAX__
#define INTPTR_MAX __INTPTR_MAX__
#define UINTPTR_MAX __UINTPTR_MAX__
#define SIZE_MAX __SIZE_MAX__
#define INT32_C(v) __INT32_C(v)
#define UINT32_C(v) __UINT32_C(v)
#define INT64_C(v) __INT64_C(v)
#define UINT64_C(v) __UINT64_C(v)
#ifndef __INT32_C /* older compilers have __INT32_C_SUFFIX__ only */
#define __INT32_C(v) v
#define __UINT32_C(v) v##U
#define __INT64_C(v) v##LL
#define __UINT64_C(v) v##ULL
#endif
#endif
