"""The GLSL of the Panda3D worlds: a lit material, one for glows and blob shadows, the sky, the shadow map.

Colours are authored in sRGB; lighting is done on their squares and `finish` brings the sum back.  One less the vertex
alpha is the gloss of a surface (alpha 1 dull, 0 chrome); the alpha of a texture is its emission (lit windows),
and in a cutout its opacity.
"""

COMMON = """#version 330
uniform vec4 sun_dir;        // xyz to the sun, w the clouds' share 0..1
uniform vec4 sun_colour;     // linear; w the sun disc's strength
uniform vec4 sky_zenith;     // linear; w exposure
uniform vec4 sky_horizon;    // linear; w fog density per metre
uniform vec4 ground_colour;  // linear light from below; w how wet the ground is 0..1
uniform vec4 eye;            // camera, world metres; w how brightly lit windows shine
uniform vec4 lamp_pos;       // a spotlight: position; w its strength, 0 is off
uniform vec4 lamp_dir;       // its unit direction; w cosine of the half angle
uniform vec4 weather;        // x, y the clouds' drift; z fog's start in metres; w unused
vec3 finish(vec3 light) {
    vec3 x = light * sky_zenith.w;
    x = (x * (2.2 * x + 0.05)) / (x * (2.1 * x + 0.65) + 0.10);
    return sqrt(clamp(x, 0.0, 1.0));
}
vec3 sky_gradient(vec3 dir) {
    float down = 1.0 - clamp(dir.z, 0.0, 1.0);
    vec3 sky = mix(sky_zenith.rgb, sky_horizon.rgb, down * down * down);
    float t = max(dot(dir, sun_dir.xyz), 0.0);
    float t4 = t * t * t * t;
    float t16 = t4 * t4 * t4 * t4;
    return sky + sun_colour.rgb * (sun_colour.w * (0.10 * t4 + 0.25 * t16 * t16));
}
vec3 fogged(vec3 light, vec3 to_point, float distance_m) {
    float clear = exp(-max(distance_m - weather.z, 0.0) * sky_horizon.w);
    float t = max(dot(to_point.xy, sun_dir.xy), 0.0) / max(distance_m, 0.01);
    return mix(sky_horizon.rgb + sun_colour.rgb * (sun_colour.w * 0.12 * t * t), light, clear);
}
"""

LIT_VERTEX = (
    COMMON
    + """
in vec4 p3d_Vertex; in vec3 p3d_Normal; in vec4 p3d_Color; in vec3 p3d_MultiTexCoord0;
uniform mat4 p3d_ModelViewProjectionMatrix; uniform mat4 p3d_ModelMatrix; uniform mat4 shadow_matrix;
uniform vec4 p3d_ColorScale;
out vec3 uv; out vec4 tint; out vec3 to_point; out vec3 sun; out vec3 ambient; out vec3 shadow_at; out vec3 normal;
void main() {
    vec4 world = p3d_ModelMatrix * p3d_Vertex;
    normal = normalize(mat3(p3d_ModelMatrix) * p3d_Normal);
    gl_Position = p3d_ModelViewProjectionMatrix * p3d_Vertex;
    uv = p3d_MultiTexCoord0;
    tint = p3d_Color * p3d_ColorScale;
    tint.rgb *= tint.rgb;
    to_point = world.xyz - eye.xyz;
    sun = sun_colour.rgb * max(dot(normal, sun_dir.xyz), 0.0);
    vec3 above = mix(sky_horizon.rgb, sky_zenith.rgb, 0.25 + 0.25 * normal.z);
    ambient = mix(ground_colour.rgb, above, 0.5 + 0.5 * normal.z);
    vec4 s = shadow_matrix * vec4(world.xyz + normal * 0.15, 1.0);
    shadow_at = s.xyz / s.w * 0.5 + 0.5;
}
"""
)

LIT_FRAGMENT = (
    COMMON
    + """
#ifdef ARRAY
uniform sampler2DArray p3d_Texture0;
#define AT uv
#else
uniform sampler2D p3d_Texture0;
#define AT uv.xy
#endif
uniform sampler2DShadow shadow_map;
in vec3 uv; in vec4 tint; in vec3 to_point; in vec3 sun; in vec3 ambient; in vec3 shadow_at; in vec3 normal;
out vec4 colour;
void main() {
    vec4 texel = texture(p3d_Texture0, AT);
#ifdef CUTOUT
    if (texel.a < 0.5) discard;
    float shine = 0.0;
#else
    float shine = texel.a;
#endif
    vec3 albedo = texel.rgb * texel.rgb * tint.rgb;
    float lit = 1.0;
#ifdef SHADOWS
    vec2 edge = abs(shadow_at.xy - 0.5);
    if (max(edge.x, edge.y) < 0.5) lit = texture(shadow_map, shadow_at);
#endif
    float distance_m = length(to_point);
    vec3 light = sun * lit + ambient;
    if (lamp_pos.w > 0.0) {
        vec3 ray = to_point + eye.xyz - lamp_pos.xyz;
        float far = length(ray);
        float cone = smoothstep(lamp_dir.w, mix(lamp_dir.w, 1.0, 0.6), dot(ray, lamp_dir.xyz) / far);
        float facing = max(dot(-ray, normal) / far, 0.0) * 0.8 + 0.2;
        light += vec3(1.0, 0.93, 0.8) * (lamp_pos.w * cone * facing / (1.0 + 0.02 * far * far));
    }
    vec3 sum = albedo * light + texel.rgb * texel.rgb * tint.rgb * (shine * eye.w);
    float puddle = normal.z > 0.9 ? ground_colour.w : 0.0;
    float gloss = max(1.0 - tint.a, puddle);
    if (gloss > 0.01) {
        vec3 view = to_point / distance_m;
        vec3 mirror = reflect(view, normal);
        float grazing = 1.0 - max(dot(-view, normal), 0.0);
        grazing *= grazing;
        mirror.z = abs(mirror.z);
        float glint = max(dot(mirror, sun_dir.xyz), 0.0);
        glint *= glint; glint *= glint; glint *= glint; glint *= glint; glint *= glint;
        sum *= 1.0 - 0.4 * puddle;
        sum += gloss * (0.06 + 0.94 * grazing * grazing) * sky_gradient(mirror);
        sum += gloss * lit * sun_colour.rgb * glint * 1.5;
    }
    colour = vec4(finish(fogged(sum, to_point, distance_m)), 1.0);
}
"""
)

GLOW_VERTEX = (
    COMMON
    + """
in vec4 p3d_Vertex; in vec4 p3d_Color; in vec2 p3d_MultiTexCoord0;
uniform mat4 p3d_ModelViewProjectionMatrix; uniform mat4 p3d_ModelMatrix; uniform vec4 p3d_ColorScale;
out vec2 uv; out vec4 tint; out float clear;
void main() {
    gl_Position = p3d_ModelViewProjectionMatrix * p3d_Vertex;
    uv = p3d_MultiTexCoord0;
    tint = p3d_Color * p3d_ColorScale;
    vec3 world = (p3d_ModelMatrix * p3d_Vertex).xyz;
    clear = exp(-max(length(world - eye.xyz) - weather.z, 0.0) * sky_horizon.w);
}
"""
)

GLOW_FRAGMENT = """#version 330
uniform sampler2D p3d_Texture0;
in vec2 uv; in vec4 tint; in float clear;
out vec4 colour;
void main() {
    vec4 texel = texture(p3d_Texture0, uv) * tint;
    colour = vec4(texel.rgb, texel.a * clear);
}
"""

SKY_VERTEX = (
    COMMON
    + """
in vec4 p3d_Vertex;
uniform mat4 p3d_ProjectionMatrixInverse; uniform mat4 p3d_ViewMatrixInverse;
out vec3 ray;
void main() {
    gl_Position = vec4(p3d_Vertex.xz, 1.0, 1.0);
    vec4 at = p3d_ProjectionMatrixInverse * vec4(p3d_Vertex.xz, 1.0, 1.0);
    ray = mat3(p3d_ViewMatrixInverse) * (at.xyz / at.w);
}
"""
)

SKY_FRAGMENT = (
    COMMON
    + """
uniform sampler2D p3d_Texture0;
in vec3 ray;
out vec4 colour;
void main() {
    vec3 dir = normalize(ray);
    vec3 sky = sky_gradient(vec3(dir.xy, max(dir.z, 0.0)));
    float toward = dot(dir, sun_dir.xyz);
    sky += sun_colour.rgb * sun_colour.w * 6.0 * smoothstep(0.9990, 0.9997, toward);
    if (dir.z > 0.02) {
        vec2 at = dir.xy / (dir.z + 0.12) * 0.16 + weather.xy;
        float puff = texture(p3d_Texture0, at).r;
        float cover = smoothstep(0.78 - 0.55 * sun_dir.w, 0.98 - 0.4 * sun_dir.w, puff);
        cover *= smoothstep(0.02, 0.18, dir.z);
        float t = max(toward, 0.0) * max(toward, 0.0);
        vec3 lit = sun_colour.rgb * (0.22 + 0.5 * t * t * t);
        lit += sky_zenith.rgb * 0.7 + sky_horizon.rgb * 0.5;
        sky = mix(sky, lit * (1.1 - 0.45 * puff), cover * 0.9);
    }
    colour = vec4(finish(sky), 1.0);
}
"""
)

DEPTH_VERTEX = """#version 330
in vec4 p3d_Vertex; in vec2 p3d_MultiTexCoord0;
uniform mat4 p3d_ModelViewProjectionMatrix;
void main() { gl_Position = p3d_ModelViewProjectionMatrix * p3d_Vertex; }
"""

DEPTH_FRAGMENT = """#version 330
void main() {}
"""


def define(source: str, *names: str) -> str:
    """`source` with `#define`s put behind its version line."""
    head, _, body = source.partition("\n")
    return "\n".join([head, *(f"#define {name}" for name in names), body])
