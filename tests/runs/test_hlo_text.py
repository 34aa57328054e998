import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import parallel
from ddpm_jax.runs import hlo_text

PROGRAM = """
  %all-reduce.1 = f32[3,3,1,32]{3,2,1,0:T(4,128)S(1)} all-reduce(%a), replica_groups={}, to_apply=%add
  ROOT %all-reduce-start = (f32[8]{0}, bf16[2,4]{1,0:T(8,128)(2,1)}) all-reduce-start(%all-reduce.1, %c)
  %all-reduce-done = (f32[8]{0}, bf16[2,4]{1,0:T(8,128)(2,1)}) all-reduce-done(%all-reduce-start)
  %g = (u8[2,8]{1,0}, pred[]) all-gather(%b, %p), dimensions={0}
  %fusion = f32[8]{0} fusion(%all-reduce-done), calls=%computation
"""


def test_collectives_are_counted_by_the_bytes_of_their_results():
    found = hlo_text.collectives(PROGRAM)
    assert found == {"all-reduce": [4 * 9 * 32, 4 * 8 + 2 * 8], "all-gather": [16 + 1]}


def test_the_collectives_of_a_program_that_xla_compiled_are_found():
    mapped = jax.pmap(lambda x: jax.lax.psum(x, "i"), axis_name="i")
    n = jax.local_device_count()
    program = mapped.lower(jax.ShapeDtypeStruct((n, 5, 7), np.float32)).compile().as_text()
    assert hlo_text.collectives(program) == {"all-reduce": [4 * 5 * 7]}


LAYERS = """HloModule jit_f, is_scheduled=true

%region (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%fused (p: f32[1024]) -> f32[1024] {
  ROOT %multiply = f32[1024]{0:T(1024)} multiply(%p, %p)
}

%body (state: (s32[], f32[1024])) -> (s32[], f32[1024]) {
  %state = (s32[]{:T(128)}, f32[1024]{0:T(1024)}) parameter(0)
  %kept = f32[1024]{0:T(1024)} get-tuple-element(%state), index=1
  %near = f32[1024]{0:T(1024)S(1)} fusion(%kept), kind=kLoop, calls=%fused
  ROOT %next = f32[1024]{0:T(1024)} negate(%near)
}

ENTRY %main (x: f32[1024], y: bf16[8,128]) -> f32[] {
  %x = f32[1024]{0:T(1024)} parameter(0)
  %y = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(1)
  %slice-start = ((f32[1024]{0:T(1024)}), f32[256]{0:T(1024)S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:256]}
  %slice-done = f32[256]{0:T(1024)S(1)} slice-done(%slice-start)
  %copy-start = (bf16[8,128]{1,0}, bf16[8,128]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%y)
  %loop = (s32[]{:T(128)}, f32[1024]{0:T(1024)}) while(%x), condition=%until, body=%body
  ROOT %sum = f32[]{:T(128)S(6)} reduce(%slice-done), dimensions={0}, to_apply=%region
}
"""


def test_only_what_is_not_in_the_chip_counts():
    body = 2 * 4 * 1024  # read by the fusion, written by the negation
    slice_read, copied = 4 * 256, 2 * 2 * 1024  # a copy within the memory is read and written
    assert hlo_text.hbm_bytes(LAYERS) == body + slice_read + copied


def products(x):
    return jax.lax.scan(lambda c, _: (jnp.sin(c) @ c, None), x, None, length=10)[0]


@pytest.mark.usefixtures("tpu_compiler")
@pytest.mark.slow
@pytest.mark.parametrize("target", ["v5e:1x1", "v4:2x2x1", "v6e:1x1"])
@pytest.mark.parametrize(
    ("function", "shapes", "moved"),
    [
        pytest.param(lambda x: 2 * x + 1, [(4096, 4096)], 2 * 4096**2, id="read and written"),
        pytest.param(lambda x, y: jnp.tanh(x @ y), [(8192, 8192)] * 2, 3 * 8192**2, id="two read, one written"),
        pytest.param(products, [(512, 512)], 2 * 512**2, id="ten products that stay in the chip"),
    ],
)
def test_a_program_for_a_tpu_moves_its_arguments_and_results(target, function, shapes, moved):
    devices = parallel.tpu_devices(target)
    arguments = [jax.ShapeDtypeStruct((len(devices), *shape), jnp.bfloat16) for shape in shapes]
    program = jax.pmap(function, devices=devices).lower(*arguments).compile().as_text()
    assert hlo_text.hbm_bytes(program) == pytest.approx(2 * moved, rel=0.01)
