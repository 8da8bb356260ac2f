// Opens an exported page in Chromium: node drive_page.mjs CHROMIUM URL FOLDER TIMES. Writes pictures and prints what it saw.
import puppeteer from "puppeteer-core";

const [chromium, url, folder, times] = process.argv.slice(2);
const args = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-zygote"];
const browser = await puppeteer.launch({ executablePath: chromium, headless: "shell", args });
const page = await browser.newPage();
await page.setViewport({ width: 256, height: 256 });
const errors = [];
page.on("pageerror", (error) => errors.push(String(error)));
await page.goto(url);
await page.waitForFunction("window.animal?.state.frames > 3 || document.getElementById('status').textContent.startsWith('This')", { timeout: 60000 });
const frames = await page.evaluate("window.animal?.state.frames");
await new Promise((done) => setTimeout(done, 2000));
const framesPerSecond = (await page.evaluate("window.animal?.state.frames") - frames) / 2;

async function picture(name, action) {
  await page.evaluate(action);
  const now = await page.evaluate("animal.state.frames");
  await page.waitForFunction(`animal.state.frames > ${now + 8}`, { timeout: 60000 });
  await new Promise((done) => setTimeout(done, 1500));  // Gaussians are sorted in a worker, frames later
  await page.screenshot({ path: `${folder}/${name}.png`, clip: { x: 0, y: 0, width: 256, height: 200 } });
}
const seek = (t) => `{ const e = document.getElementById("time"); e.value = ${t}; e.dispatchEvent(new Event("input")); }`;
await picture("start", seek(0));
await picture("later", seek(0.6));
await picture("start_again", seek(0));
const turn = `animal.state.turned.set(animal.skeleton.bones[1], new animal.skeleton.bones[1].quaternion.constructor(0.5, 0, 0, 0.866))`;
await picture("posed", turn);
await picture("reset", `document.getElementById("reset").click()`);

// The GLB as any three.js program reads it: every 20th vertex of the skinned mesh at times of its animation, turned to z up.
const vertices = await page.evaluate(async (times) => {
  const { GLTFLoader } = await import("three/addons/loaders/GLTFLoader.js");
  const { AnimationMixer, Vector3 } = await import("three");
  const gltf = await new GLTFLoader().loadAsync("./proxy.glb");
  const mixer = new AnimationMixer(gltf.scene);
  const clip = gltf.animations[0];
  mixer.clipAction(clip).play();
  let mesh;
  gltf.scene.traverse((node) => { if (node.isSkinnedMesh) mesh = node; });
  return times.map((seconds) => {
    mixer.setTime(Math.min(seconds, clip.duration * (1 - 1e-6)));  // at its very end a clip begins anew
    gltf.scene.updateMatrixWorld(true);
    const places = [];
    for (let i = 0; i < mesh.geometry.attributes.position.count; i += 20) {
      const { x, y, z } = mesh.getVertexPosition(i, new Vector3()).applyMatrix4(mesh.matrixWorld);
      places.push([x, -z, y]);
    }
    return places;
  });
}, JSON.parse(times));
console.log(JSON.stringify({ vertices, errors, framesPerSecond, status: await page.evaluate("document.getElementById('status').textContent") }));
await browser.close();
