/** Photographs: by the camera app on phones, in a dialog elsewhere. */

const $ = (id) => document.getElementById(id);

/** Calls `use` with the photograph, unless there is none. */
export async function photograph(use, fail) {
  const byHand = matchMedia('(pointer: coarse)').matches;
  if (byHand || !navigator.mediaDevices?.getUserMedia) { // which takes https or localhost
    $('capture').click();
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {width: 1280}});
  } catch {
    fail('There is no camera, or this page may not use it.');
    return;
  }
  $('video').srcObject = stream;
  $('camera').returnValue = '';
  $('camera').showModal();
  $('camera').addEventListener('close', async () => {
    const photo = $('camera').returnValue === 'shoot' ? await frame($('video')) : null;
    stream.getTracks().forEach((track) => track.stop());
    $('video').srcObject = null;
    if (photo) use(photo);
  }, {once: true});
}

/** What a video shows, as a file. */
async function frame(video) {
  const canvas = new OffscreenCanvas(video.videoWidth || 1, video.videoHeight || 1);
  canvas.getContext('2d').drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({type: 'image/jpeg', quality: 0.92});
  return new File([blob], 'photo.jpg', {type: blob.type});
}
