/* What a block's library holds beside TVM's object code: its constants, and its way to the runtime library.
 *
 * NAS_WEIGHTS is the file of the constants, NAS_SHIM is defined where the runtime library is ours. They stand in
 * .rodata, so they are mapped from the file, once for all processes. Constants lie at a multiple of 64 bytes. */

#if defined(__arm__)
#define POINTER .long
#define JUMP(name) b name
#elif defined(__aarch64__)
#define POINTER .quad
#define JUMP(name) b name
#else
#define POINTER .quad
#define JUMP(name) jmp name@PLT
#endif

    .section .rodata.nas_constants, "a", %progbits
    .balign 64
nas_constants:
    .incbin NAS_WEIGHTS

    .section .text.nas_weights, "ax", %progbits
    .balign 16
    .globl nas_weights
    .hidden nas_weights
    .type nas_weights, %function
nas_weights:
#if defined(__x86_64__)
    leaq nas_constants(%rip), %rax
    ret
#elif defined(__aarch64__)
    adrp x0, nas_constants
    add x0, x0, :lo12:nas_constants
    ret
#elif defined(__arm__)
    .arm
    ldr r0, 1f
0:  add r0, pc, r0
    bx lr
1:  .word nas_constants - (0b + 8)
#endif
    .size nas_weights, . - nas_weights

/* With our runtime library its own names are used, so that TVM's in the same process are not taken for them. */
#if defined(NAS_SHIM)
#define LAUNCH nas_parallel_launch
#define ALLOC nas_alloc_workspace
#define FREE nas_free_workspace
#else
#define LAUNCH TVMBackendParallelLaunch
#define ALLOC TVMBackendAllocWorkspace
#define FREE TVMBackendFreeWorkspace
#endif

/* TVM's code calls these through pointers and leaves it to TVM's loader to set them; here the dynamic linker does. */
    .macro pointer name, to
    .section .data.rel.ro.\name, "aw", %progbits
    .balign 8
    .globl \name
    .hidden \name
    .type \name, %object
\name:
    POINTER \to
    .endm

    pointer __TVMBackendParallelLaunch, LAUNCH
    pointer __TVMBackendAllocWorkspace, ALLOC
    pointer __TVMBackendFreeWorkspace, FREE

/* And these it calls by name. */
#if defined(NAS_SHIM)
    .macro forward name, to
    .section .text.\name, "ax", %progbits
    .balign 4
    .globl \name
    .hidden \name
    .type \name, %function
\name:
    JUMP(\to)
    .size \name, . - \name
    .endm

    forward TVMFFIErrorSetRaisedFromCStr, nas_raise
    forward TVMFFIErrorSetRaisedFromCStrParts, nas_raise_parts
#endif

#if defined(__arm__)
/* Personality routines that unwind tables name; nothing unwinds through a kernel. */
    .section .text.nas_unwind, "ax", %progbits
    .globl __aeabi_unwind_cpp_pr0, __aeabi_unwind_cpp_pr1
    .hidden __aeabi_unwind_cpp_pr0
    .hidden __aeabi_unwind_cpp_pr1
__aeabi_unwind_cpp_pr0:
__aeabi_unwind_cpp_pr1:
    bx lr
#endif

    .section .note.GNU-stack, "", %progbits
