"""The temple world's GLSL: lit stone and leaves from the array of materials, the abyss, glows, far mountains.

Height fog (`mist`) fills the depth; torch light comes baked in the vertex alpha.  Light and sky are panda_shaders'.
"""

from reverie.worlds.panda_shaders import COMMON

_MIST = """
uniform vec4 mist;         // linear colour of the mist; w its density per metre
uniform vec4 place;        // z below which the mist lies, z of the abyss, time in seconds, unused
vec3 misted(vec3 light, float z) {
    float deep = max(place.x - z, 0.0);
    return mix(mist.rgb, light, exp(-deep * mist.w));
}
"""

LIT_VERTEX = (
    COMMON
    + """
in vec4 p3d_Vertex; in vec3 p3d_Normal; in vec4 p3d_Color; in vec3 p3d_MultiTexCoord0;
uniform mat4 p3d_ModelViewProjectionMatrix; uniform mat4 p3d_ModelMatrix; uniform mat4 shadow_matrix;
uniform vec4 torch;        // linear colour of torch light
out vec3 uv; out vec3 tint; out vec4 world_at; out vec3 sun; out vec3 ambient; out vec3 shadow_at;
void main() {
    vec4 world = p3d_ModelMatrix * p3d_Vertex;
    vec3 normal = normalize(mat3(p3d_ModelMatrix) * p3d_Normal);
    gl_Position = p3d_ModelViewProjectionMatrix * p3d_Vertex;
    uv = p3d_MultiTexCoord0;
    tint = p3d_Color.rgb * p3d_Color.rgb;
    float facing = dot(normal, sun_dir.xyz);
#ifdef CUTOUT
    facing = 0.45 + 0.55 * abs(facing);
#endif
    sun = sun_colour.rgb * max(facing, 0.0);
    vec3 above = mix(sky_horizon.rgb, sky_zenith.rgb, 0.5 + 0.5 * normal.z);
    ambient = mix(ground_colour.rgb, above, 0.5 + 0.5 * normal.z) + torch.rgb * (1.0 - p3d_Color.a) * torch.w;
    world_at = vec4(world.xyz - eye.xyz, world.z);
    vec4 s = shadow_matrix * vec4(world.xyz + normal * 0.06, 1.0);
    shadow_at = s.xyz / s.w * 0.5 + 0.5;
}
"""
)

LIT_FRAGMENT = (
    COMMON
    + _MIST
    + """
uniform sampler2DArray materials; uniform sampler2DShadow shadow_map;
in vec3 uv; in vec3 tint; in vec4 world_at; in vec3 sun; in vec3 ambient; in vec3 shadow_at;
out vec4 colour;
void main() {
    vec4 texel = texture(materials, uv);
#ifdef CUTOUT
    if (texel.a < 0.4) discard;
#endif
    float lit = 1.0;
    vec2 edge = abs(shadow_at.xy - 0.5);
    if (max(edge.x, edge.y) < 0.5) lit = texture(shadow_map, shadow_at);
    vec3 sum = texel.rgb * texel.rgb * tint * (sun * lit + ambient);
    sum = misted(sum, world_at.w);
    colour = vec4(finish(fogged(sum, world_at.xyz, length(world_at.xyz))), 1.0);
}
"""
)

ABYSS_VERTEX = (
    COMMON
    + """
in vec4 p3d_Vertex;
uniform mat4 p3d_ModelViewProjectionMatrix; uniform mat4 p3d_ModelMatrix;
out vec3 world;
void main() {
    world = (p3d_ModelMatrix * p3d_Vertex).xyz;
    gl_Position = p3d_ModelViewProjectionMatrix * p3d_Vertex;
}
"""
)

ABYSS_FRAGMENT = (
    COMMON
    + _MIST
    + """
uniform sampler2DArray materials; uniform vec4 flow;   // xy offset of the flow, z metres of one texture, w gloss
in vec3 world;
out vec4 colour;
void main() {
    vec2 at = world.xy / flow.z;
    vec4 texel = texture(materials, vec3(at + flow.xy, 12.0));
    vec4 broad = texture(materials, vec3(at * 0.31 - flow.xy * 0.4 + 0.37, 12.0));
    vec3 albedo = texel.rgb * texel.rgb * (0.5 + broad.rgb);
    vec3 to_point = world - eye.xyz;
    float far = length(to_point);
    vec3 view = to_point / far;
    vec3 sum = albedo * (sun_colour.rgb * max(sun_dir.z, 0.0) * 0.8 + sky_zenith.rgb * 0.5 + sky_horizon.rgb * 0.5);
    sum += texel.rgb * texel.rgb * (1.0 - texel.a) * 3.5;
    if (flow.w > 0.0) {
        vec3 mirror = normalize(vec3(view.xy, -view.z) + vec3(texel.g - 0.4, broad.g - 0.4, 0.0) * 0.25);
        float fresnel = flow.w * (0.08 + 0.92 * pow(1.0 - abs(view.z), 4.0));
        sum = mix(sum, sky_gradient(mirror), fresnel);
        sum += flow.w * sun_colour.rgb * pow(max(dot(mirror, sun_dir.xyz), 0.0), 40.0);
    }
    sum = misted(sum, mix(place.x, world.z, 0.55));
    colour = vec4(finish(fogged(sum, to_point, far)), 1.0);
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
    vec3 air = sky_gradient(dir);
    colour = vec4(finish(mix(air, ridge.rgb, ridge.w * height)), 1.0);
}
"""
)
