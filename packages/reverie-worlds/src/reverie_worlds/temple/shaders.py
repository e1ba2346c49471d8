"""The temple world's GLSL: lit stone and leaves from the array of materials, the abyss, glows, far mountains.

Height fog (`mist`) fills the depth; torch light comes baked in the vertex alpha.  Light and sky are panda_shaders'.
"""

from reverie_worlds.panda.shaders import COMMON

_MIST = """
vec3 air_gradient(vec3 dir) {   // sky_gradient without a power function: it is worked out at every corner
    float low = 1.0 - clamp(dir.z, 0.0, 1.0);
    float toward = max(dot(dir, sun_dir.xyz), 0.0);
    float t4 = toward * toward; t4 *= t4;
    float t32 = t4 * t4; t32 *= t32; t32 *= t32;
    vec3 sky = mix(sky_horizon.rgb, sky_zenith.rgb, 1.0 - low * low * low);
    return sky + sun_colour.rgb * (sun_colour.w * (0.10 * t4 + 0.25 * t32));
}
uniform vec4 mist;         // linear colour of the mist; w its density per metre
uniform vec4 place;        // x: the height below which the mist lies; the rest unused
"""

LIT_VERTEX = (
    COMMON
    + _MIST
    + """
in vec4 p3d_Vertex; in vec3 p3d_Normal; in vec4 p3d_Color; in vec3 p3d_MultiTexCoord0;
uniform mat4 p3d_ModelViewProjectionMatrix; uniform mat4 p3d_ModelMatrix; uniform mat4 shadow_matrix;
uniform vec4 torch;        // linear colour of torch light
out vec3 uv; out vec3 sun; out vec3 ambient; out vec3 air; out vec3 shadow_at;
void main() {
    vec4 world = p3d_ModelMatrix * p3d_Vertex;
    vec3 normal = mat3(p3d_ModelMatrix) * p3d_Normal;
    gl_Position = p3d_ModelViewProjectionMatrix * p3d_Vertex;
    uv = p3d_MultiTexCoord0;
    vec3 tint = p3d_Color.rgb * p3d_Color.rgb;
    float facing = dot(normal, sun_dir.xyz);
#ifdef CUTOUT
    facing = 0.45 + 0.55 * abs(facing);
#endif
    vec3 above = mix(sky_horizon.rgb, sky_zenith.rgb, 0.5 + 0.5 * normal.z);
    vec3 around = mix(ground_colour.rgb, above, 0.5 + 0.5 * normal.z) + torch.rgb * (1.0 - p3d_Color.a) * torch.w;
    // what reaches the eye is texel * (sun * lit + ambient) + air: mist and fog are worked out here, for the corners
    vec3 to_point = world.xyz - eye.xyz;
    float far = length(to_point);
    float clear = exp(-max(far - weather.z, 0.0) * sky_horizon.w);
    float thin = exp(-max(place.x - world.z, 0.0) * mist.w);
    vec3 dir = to_point / max(far, 0.01);
    dir.z = max(dir.z, 0.0) * 0.5;
    air = mist.rgb * ((1.0 - thin) * clear) + air_gradient(dir) * (1.0 - clear);
    sun = sun_colour.rgb * tint * (max(facing, 0.0) * thin * clear);
    ambient = around * tint * (thin * clear);
    vec4 s = shadow_matrix * vec4(world.xyz + normal * 0.06, 1.0);
    shadow_at = s.xyz * 0.5 + 0.5;
}
"""
)

LIT_FRAGMENT = (
    COMMON
    + """
uniform sampler2DArray materials; uniform sampler2DShadow shadow_map;
in vec3 uv; in vec3 sun; in vec3 ambient; in vec3 air; in vec3 shadow_at;
out vec4 colour;
void main() {
    vec4 texel = texture(materials, uv);
#ifdef CUTOUT
    if (texel.a < 0.4) discard;
#endif
    vec2 edge = abs(shadow_at.xy - 0.5);
    float lit = max(edge.x, edge.y) < 0.5 ? texture(shadow_map, shadow_at) : 1.0;
    colour = vec4(finish(texel.rgb * texel.rgb * (sun * lit + ambient) + air), 1.0);
}
"""
)

ABYSS_VERTEX = (
    COMMON
    + _MIST
    + """
in vec4 p3d_Vertex;
uniform mat4 p3d_ModelViewProjectionMatrix; uniform mat4 p3d_ModelMatrix;
uniform vec4 flow;         // xy offset of the flow, z metres of one texture, w gloss
out vec3 to_point; out vec4 at;
void main() {
    vec3 world = (p3d_ModelMatrix * p3d_Vertex).xyz;
    gl_Position = p3d_ModelViewProjectionMatrix * p3d_Vertex;
    to_point = world - eye.xyz;
    vec2 tile = world.xy / flow.z;
    at = vec4(tile + flow.xy, tile * 0.31 - flow.xy * 0.4 + 0.37);
}
"""
)

ABYSS_FRAGMENT = (
    COMMON
    + _MIST
    + """
uniform sampler2DArray materials; uniform vec4 flow;
uniform vec4 abyss_light;  // linear light on a level floor; w how much of it the mist lets through
in vec3 to_point; in vec4 at;
out vec4 colour;
void main() {
    vec4 texel = texture(materials, vec3(at.xy, 12.0));
    vec3 broad = texture(materials, vec3(at.zw, 12.0)).rgb;
    float far = length(to_point);
    vec3 view = to_point / far;
    vec3 own = texel.rgb * texel.rgb;
    vec3 sum = own * ((0.5 + broad) * abyss_light.rgb + (1.0 - texel.a) * 3.5);
    if (flow.w > 0.0) {
        vec3 mirror = normalize(vec3(view.xy + (vec2(texel.g, broad.g) - 0.4) * 0.25, -view.z));
        float flat_look = 1.0 - abs(view.z);
        flat_look *= flat_look;
        sum = mix(sum, air_gradient(mirror), flow.w * (0.08 + 0.92 * flat_look * flat_look));
        float glint = max(dot(mirror, sun_dir.xyz), 0.0);
        glint *= glint; glint *= glint; glint *= glint;
        float sharp = glint * glint; sharp *= sharp;
        sum += flow.w * sun_colour.rgb * (sharp * glint);
    }
    sum = mix(mist.rgb, sum, abyss_light.w);
    float clear = exp(-max(far - weather.z, 0.0) * sky_horizon.w);
    colour = vec4(finish(mix(air_gradient(vec3(view.xy, 0.0)), sum, clear)), 1.0);
}
"""
)

GLOW_VERTEX = (
    COMMON
    + """
in vec4 p3d_Vertex; in vec4 p3d_Color; in vec3 p3d_MultiTexCoord0;
uniform mat4 p3d_ModelViewProjectionMatrix; uniform mat4 p3d_ModelMatrix;
out vec3 uv; out vec4 tint; out float clear;
void main() {
    gl_Position = p3d_ModelViewProjectionMatrix * p3d_Vertex;
    uv = p3d_MultiTexCoord0;
    tint = p3d_Color;
    vec3 world = (p3d_ModelMatrix * p3d_Vertex).xyz;
    clear = exp(-max(length(world - eye.xyz) - weather.z, 0.0) * sky_horizon.w);
}
"""
)

GLOW_FRAGMENT = (
    COMMON
    + _MIST
    + """
uniform sampler2DArray materials;
in vec3 uv; in vec4 tint; in float clear;
out vec4 colour;
void main() {
    vec4 texel = texture(materials, uv) * tint;
    colour = vec4(texel.rgb, texel.a * clear);
}
"""
)

MOUNTAIN_VERTEX = (
    COMMON
    + """
in vec4 p3d_Vertex; in vec4 p3d_Color;
uniform mat4 p3d_ModelViewProjectionMatrix; uniform mat4 p3d_ModelMatrix;
out vec3 to_point; out float height;
void main() {
    gl_Position = p3d_ModelViewProjectionMatrix * p3d_Vertex;
    to_point = (p3d_ModelMatrix * p3d_Vertex).xyz - eye.xyz;
    height = p3d_Color.r;
}
"""
)

MOUNTAIN_FRAGMENT = (
    COMMON
    + _MIST
    + """
uniform vec4 ridge;        // linear colour of the far mountains; w how much of it comes through the air
in vec3 to_point; in float height;
out vec4 colour;
void main() {
    vec3 dir = normalize(to_point);
    dir.z = max(dir.z, 0.0) * 0.5;
    vec3 air = air_gradient(dir);
    colour = vec4(finish(mix(air, ridge.rgb, ridge.w * height)), 1.0);
}
"""
)
