/* A plugin for qemu's user emulation: how many instructions an arm64 process executes, and of what kinds.
 *
 *     cc -O2 -shared -fPIC -o count.so arm_instructions.c
 *     qemu-aarch64 -plugin ./count.so,out=FILE program
 *
 * Whenever the program asks for its parent's id (getppid, in Python os.getppid), FILE gets a line with what was executed
 * so far: all, multiply-adds (fmla and fmls of vectors, sdot, udot), other vector and scalar float instructions, loads
 * and stores. Counters are added to without locks and for all threads: meant for one that is busy.
 *
 * Debian packages no qemu-plugin.h, so what is used of the interface (version 1: qemu 4.2 to 8.1) is declared here.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                               uint64_t, uint64_t, uint64_t));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

#define GETPPID 173 /* on arm64 */

enum kind { ALL, MULTIPLY_ADD, VECTOR, MEMORY, KINDS };
static uint64_t counted[KINDS];
static FILE *out;

/* The encodings are those of the Arm Architecture Reference Manual, C4.1. */
static enum kind kind_of(uint32_t word)
{
    bool three_same = (word & 0xBF20FC00) == 0x0E20CC00;  /* fmla, fmls Vd.T, Vn.T, Vm.T */
    bool by_element = (word & 0xBF80B400) == 0x0F801000;  /* fmla, fmls Vd.T, Vn.T, Vm.S[i] */
    bool dot = (word & 0x9F20FC00) == 0x0E009400;         /* sdot, udot Vd.4s, Vn.16b, Vm.16b */
    bool dot_by_element = (word & 0x9F00F400) == 0x0F00E000;
    if (three_same || by_element || dot || dot_by_element)
        return MULTIPLY_ADD;
    if ((word & 0x0A000000) == 0x08000000)
        return MEMORY;
    return (word & 0x0E000000) == 0x0E000000 ? VECTOR : ALL;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    uint64_t found[KINDS] = {0};
    found[ALL] = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < found[ALL]; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        enum kind kind = kind_of(word);
        found[kind] += kind != ALL;
    }
    for (int kind = 0; kind < KINDS; kind++)
        if (found[kind])
            qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &counted[kind], found[kind]);
}

static void called(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    if (number != GETPPID)
        return;
    for (int kind = 0; kind < KINDS; kind++)
        fprintf(out, "%llu%c", (unsigned long long)counted[kind], kind + 1 < KINDS ? ' ' : '\n');
    fflush(out);
}

__attribute__((visibility("default"))) int
qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    out = argc == 1 && !strncmp(argv[0], "out=", 4) ? fopen(argv[0] + 4, "w") : NULL;
    if (!out) {
        fprintf(stderr, "arm_instructions: pass out=FILE, a file that can be written\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
