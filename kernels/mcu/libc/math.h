/* math.h - what the kernels use of it, where there is no C library. */
#ifndef FB_MATH_H
#define FB_MATH_H
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define HUGE_VAL __builtin_inf()
#define isnan(x) __builtin_isnan(x)
#define isinf(x) __builtin_isinf_sign(x)
#define isfinite(x) __builtin_isfinite(x)
#define signbit(x) __builtin_signbit(x)
float fmaf(float a, float b, float c);
float rintf(float x);
float floorf(float x);
float ceilf(float x);
float sqrtf(float x);
#define fabsf(x) __builtin_fabsf(x)
#define fabs(x) __builtin_fabs(x)
float fmodf(float a, float b);
double rint(double x);
double floor(double x);
double ceil(double x);
double sqrt(double x);
double fmod(double a, double b);
#endif
